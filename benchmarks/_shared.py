"""Real data for the benchmarks: ../shared beside the checkout; archives are unpacked once into a temporary folder."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "mobilenetv2_100"


def dataset(name: str) -> Path:
    """The folder of a data set; ends the benchmark with a word where ../shared is absent."""
    unpacked = Path(tempfile.gettempdir()) / "topwork-benchmarks"
    archives = sorted((SHARED / "data").glob(f"{name}.tar*"))
    if not archives or not WEIGHTS.is_dir():
        raise SystemExit(f"skipped: {SHARED} does not hold {name} and the weights of mobilenetv2_100")
    if not (unpacked / name).is_dir():
        with tempfile.TemporaryDirectory(dir=_made(unpacked)) as fresh, tarfile.open(archives[0]) as archive:
            archive.extractall(fresh, filter="data")
            (Path(fresh) / name).rename(unpacked / name)
    return unpacked / name


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
