"""Weights on disk without torch: what a file holds, whether it is what its card says, graphs exported from it before.

    sha256(path)   shapes(path)   check_hash(path, expected)   check_shapes(expected, found, where)
    load_graph(key) -> bytes | None     save_graph(key, graph)          cache/graphs/KEY.onnx beside KEY.onnx.sha256
    recall(spec) -> Card | None         remember(card, source)          cache/cards/DIGEST.json

Where encryption is asked for the graphs are sealed (encryption.py), in cache/graphs-sealed.
Pickles are refused by name. A cached graph whose hash differs counts as absent; so does a card whose weights changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from topwork import settings
from topwork.errors import BadWeights
from topwork.store.atomic import write_file
from topwork.store.encryption import NotOurs
from topwork.store.own_files import keep, kept
from topwork.types import Card, Preprocess, digest

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".tar")
Shapes = Mapping[str, tuple[int, ...]]


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadWeights(f"{path} cannot be read: {error.strerror or error}") from error


def check_hash(path: Path, expected: str, said_by: str) -> str:
    """The file's hash, which must begin with `expected`."""
    found = sha256(path)
    if not expected or not found.startswith(expected.lower()):
        raise BadWeights(
            f"{path} is not the file that {said_by} describes: sha256 {found}, expected {expected}. Copy it again"
        )
    return found


def refuse_pickle(path: Path) -> None:
    """A pickle can run any program when it is opened."""
    if path.suffix.lower() in PICKLES:
        raise BadWeights(
            f"{path} is a pickle, which can run code when loaded; only safetensors are. Convert it where you trust it: "
            f"safetensors.torch.save_file(torch.load('{path.name}', weights_only=True), 'model.safetensors')"
        )


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file; reads the header only."""
    from safetensors import SafetensorError, safe_open

    refuse_pickle(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadWeights(f"{path} is not a readable safetensors file: {error}") from error


def check_shapes(expected: Shapes, found: Shapes, where: str) -> None:
    """Names and shapes of an architecture against those of a file, both sides named."""
    missing, surplus = [n for n in expected if n not in found], [n for n in found if n not in expected]
    other = [n for n in expected if n in found and tuple(expected[n]) != tuple(found[n])]
    complaints = [
        *([f"{len(missing)} tensors missing ({_few(missing)})"] if missing else []),
        *([f"{len(surplus)} tensors unknown to the architecture ({_few(surplus)})"] if surplus else []),
        *([f"{len(other)} of another shape ({_differences(other, expected, found)})"] if other else []),
    ]
    if complaints:
        raise BadWeights(f"{where} does not fit its architecture: {'; '.join(complaints)}")


def load_graph(key: str) -> bytes | None:
    """An exported graph, if it is here and whole."""
    path = _graph(key)
    with contextlib.suppress(OSError, NotOurs):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == path.with_suffix(".onnx.sha256").read_text().strip():
            return kept(_place(key), data)
    return None


def save_graph(key: str, graph: bytes) -> None:
    """Keep an exported graph; the hash is written last and makes it valid."""
    path, graph = _graph(key), keep(_place(key), graph)
    write_file(path, graph)
    write_file(path.with_suffix(".onnx.sha256"), hashlib.sha256(graph).hexdigest().encode())


def recall(spec: str) -> Card | None:
    """The card kept for a spec, unless the weights that it came from have changed since."""
    try:
        kept = json.loads(_card(spec).read_bytes())
        if _stamp(Path(kept["source"])) not in (None, kept["stamp"]):
            return None
        facts, pixels = kept["card"], kept["card"].pop("preprocess")
        pixels |= {"mean": tuple(pixels["mean"]), "std": tuple(pixels["std"])}
        card = Card(**facts, preprocess=Preprocess(**pixels))
        return card if card.spec == spec else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # absent, damaged or of another version
        return None


def remember(card: Card, source: Path) -> None:
    """Keep a card, so that the next process needs neither the library nor the hash of the weights."""
    kept = {"card": dataclasses.asdict(card), "source": str(source), "stamp": _stamp(source)}
    write_file(_card(card.spec), json.dumps(kept, indent=1).encode())


def _graph(key: str) -> Path:
    folder = "graphs-sealed" if settings.encrypted() else "graphs"
    return settings.cache_folder() / folder / f"{key}.onnx"


def _place(key: str) -> list[bytes]:
    return [b"graph", key.encode()]


def _card(spec: str) -> Path:
    return settings.cache_folder() / "cards" / f"{digest(spec)}.json"


def _stamp(path: Path) -> list[int] | None:
    """Size and time of a file; None where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns]


def _few(names: Collection[str], most: int = 3) -> str:
    return ", ".join(list(names)[:most]) + (", ..." if len(names) > most else "")


def _differences(names: Collection[str], expected: Shapes, found: Shapes) -> str:
    return _few([f"{name}: file {list(found[name])}, architecture {list(expected[name])}" for name in names])
