"""Places where backbones come from, one file each; its class keeps `topwork.backbones.Source`: cards(), load(name)."""
