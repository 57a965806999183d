"""`topwork redact`: a new dataset without what tells who is meant, and a report of counts.

    read -> data/redact.py (texts, or copies of images) -> data/write.py

Settings that cannot work stop it before the data are read: kinds, the key, the model for names, the detector of faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork import plugins, settings
from topwork.data import redact
from topwork.data.faces import Detector
from topwork.errors import BadSetting
from topwork.modalities.recognisers import names as recogniser
from topwork.modalities.redaction import NEEDY, Redaction, read_key, specs_of
from topwork.types import Dataset, Watch

if TYPE_CHECKING:
    from topwork.artefact.model import Model

WEIGHTS = (*recogniser.ONNX, "model.safetensors")


def chosen(asked: str | Sequence[str] | None, how: str, key: str | Path | None, names: str | None) -> Redaction:
    """What is looked for; `names`: local:FOLDER or hf:ORG/NAME of a token classification model."""
    specs = list(specs_of(asked))
    if names is not None:
        specs = [spec for spec in specs if spec != "names"]
        folder = names_folder(names)
        recogniser.opened(folder)
        specs.append(f"names(folder={folder!r})")
    return Redaction.of(specs, how, read_key(key) if how == "pseudonym" else b"")


def without_needy(asked: str | Sequence[str] | bool | None) -> Redaction | None:
    """What `fit --redact` masks: a saved model must do it alike, so only kinds that need nothing; None: nothing."""
    if asked is None or asked is False:
        return None
    if needy := [name for spec in specs_of(asked) if (name := plugins.parse(spec)[0]) in NEEDY]:
        raise BadSetting(
            f"--redact {needy[0]}: a saved model would need its model, too. Run topwork redact DATA --{needy[0]} first"
        )
    return Redaction.of(asked)


def of_model(model: Model) -> Redaction | None:
    """How a saved model of texts masks what it is asked; None: it does not."""
    facts = model.manifest.get("redact")
    return Redaction.of_facts(facts) if facts else None


def as_for(model: Model, dataset: Dataset) -> Dataset:
    """The texts as the model reads them, so that no report shows more."""
    redaction = of_model(model)
    return dataset if redaction is None or dataset.modality != "text" else redact.masked(dataset, redaction)


def masked(
    dataset: Dataset, others: Sequence[tuple[str, Dataset]], redaction: Redaction, watch: Watch
) -> tuple[Dataset, list[tuple[str, Dataset]]]:
    """The data of a fit and its sources, before anything is looked at or kept."""
    _refuse_rows(dataset)
    if dataset.modality != "text":
        watch.say("redact: what is kept of images is small pictures without metadata; topwork redact cleans the files")
        return dataset, list(others)
    found = redact.Found()
    dataset = redact.masked(dataset, redaction, found, watch.progress)
    counts = ", ".join(f"{fact['count']:,} {kind}" for kind, fact in found.facts().items())
    watch.say(f"redact: {counts or 'nothing found'} in {len(dataset):,} texts, masked before anything is kept")
    return dataset, [(name, redact.masked(other, redaction)) for name, other in others]


def _refuse_rows(dataset: Dataset) -> None:
    if dataset.modality == "row":
        raise BadSetting(
            f"{dataset.name} holds rows of numbers and words, in which nothing is masked. Name the columns to learn "
            "from with --item-column A,B and leave out what tells who is meant"
        )


def names_folder(spec: str) -> str:
    """The folder of local:FOLDER, or of hf:ORG/NAME in the hub's cache, fetched if it is not there."""
    place, _, name = spec.partition(":")
    if place == "local" and name:
        return str(Path(name).expanduser().absolute())
    if place == "hf" and name:
        from topwork.backbones import fetch

        config = fetch.hub_file(name, recogniser.FILES[:1], spec)
        fetch.hub_file(name, recogniser.FILES[1:], spec)
        fetch.hub_file(name, WEIGHTS, spec)
        return str(config.parent)
    raise BadSetting(f"--names {spec}: expected local:FOLDER or hf:ORG/NAME")


def run(
    dataset: Dataset, redaction: Redaction, out: Path, *, detector: Detector | None = None, watch: Watch | None = None
) -> dict[str, Any]:
    """Write the new dataset; returns the report."""
    watch = watch or Watch()
    _refuse_rows(dataset)
    redact.check_target(dataset, out)
    if dataset.modality == "text":
        if detector is not None:
            raise BadSetting(f"--faces: {dataset.name} holds texts, in which there are no faces")
        return redact.write_texts(dataset, redaction, out, {}, watch.progress)
    facts = {"faces": detector.path.name} if detector is not None else {}
    threads = settings.threads().value
    return redact.write_images(dataset, redaction, out, facts, detector, threads, watch.progress)
