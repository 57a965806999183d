"""The catalogue: facts about known backbones, and about those that lie on this machine, without loading anything.

    entries()                        what catalogue.toml says, in its order
    here()                           what lies here: bundled, local folders, the hub's cache, torch's cache
    listing(Wanted(...))             both, joined by spec, filtered
    record("timm:resnet18.a1_in1k")  one of them, whether it is here, and where

The file system is looked at by names and sizes only; no library is imported, so that listing is quick.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from topwork.errors import BadSetting, BadWeights, UnknownName

FILE = Path(__file__).with_name("catalogue.toml")
Modality = Literal["image", "text", "audio"]
UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "kb": 1e3, "mb": 1e6, "gb": 1e9}
HUB_FILES = ("model.safetensors", "open_clip_model.safetensors")


@dataclass(frozen=True)
class Entry:
    """One backbone: what is known of it. None, "" or () where a fact is not known."""

    spec: str
    modality: Modality = "image"
    family: str = ""
    year: int | None = None  # of the architecture's paper
    architecture: str = ""  # class of transformers with its options
    parameters: int | None = None  # as published, classifier included
    multiply_adds: int | None = None  # for one image, 128 tokens, one second of sound (Whisper: 30 s, AST: 10 s)
    features: int | None = None  # D
    depthwise: bool | None = None  # most convolutions wider than 1 x 1 work on each channel by itself
    input_px: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    trained_on: str = ""
    trained_items: int | None = None
    top1: float | None = None  # ImageNet-1k validation, percent, at input_px
    licence: str = ""
    url: str = ""  # of the weights, where they are one file
    bytes: int | None = None  # of the weights on disk: as they lie here, else float32
    here: str = ""  # where they lie; "": they would have to be downloaded

    @property
    def origin(self) -> str:
        """Where the weights come from if they are not here."""
        place, _, name = self.spec.partition(":")
        if place == "timm":
            return f"https://huggingface.co/timm/{name}"
        if place == "hf":
            return f"https://huggingface.co/{name}"
        return self.url or self.here


@dataclass(frozen=True)
class Wanted:
    """What a listing is narrowed to. Facts that are not known do not pass a filter that asks for them."""

    max_params: str = ""  # "10M"
    max_size: str = ""  # "20MB"
    licence: str = ""
    modality: str = ""
    local: bool = False
    depthwise: bool = False

    def check(self) -> None:
        """Refuse what means nothing, before anything is read."""
        if self.modality and self.modality not in get_args(Modality):
            raise UnknownName.among(self.modality, "modalities", get_args(Modality))
        for option, text in (("--max-params", self.max_params), ("--max-size", self.max_size)):
            if text:
                amount(text, option)

    def passes(self, entry: Entry) -> bool:
        """Whether an entry is wanted."""
        return (
            _at_most(entry.parameters, self.max_params, "--max-params")
            and _at_most(entry.bytes, self.max_size, "--max-size")
            and (not self.licence or _words(entry.licence)[:1] == _words(self.licence))
            and (not self.modality or entry.modality == self.modality)
            and (not self.local or bool(entry.here))
            and (not self.depthwise or entry.depthwise is True)
        )


def amount(text: str, option: str) -> float:
    """ "10M", "20 MB", "1.5e6" -> number."""
    kept = text.strip().lower().replace("_", "").replace(",", "")
    number = kept.rstrip("kmgb ")
    unit = kept[len(number) :].strip()
    try:
        value = float(number) * UNITS[unit]
    except (ValueError, KeyError) as error:
        raise BadSetting(f"{option} {text}: expected a number such as 500k, 10M, 20MB or 1.5GB") from error
    if not 0 < value < float("inf"):
        raise BadSetting(f"{option} {text}: expected a number above 0")
    return value


@cache
def entries() -> tuple[Entry, ...]:
    """The catalogue, in its order; `here` is empty, `bytes` are those of float32."""
    rows = tomllib.loads(FILE.read_text(encoding="utf-8"))["backbone"]
    return tuple(Entry(**_plain(row), bytes=4 * row["parameters"] if "parameters" in row else None) for row in rows)


def here() -> tuple[Entry, ...]:
    """What lies on this machine and can be used without a download."""
    known = {entry.spec: entry for entry in entries()}
    found = []
    for entry in (*_bundled(), *_local(), *_hub(), *_torch()):
        facts = known.get(entry.spec) or known.get(entry.spec.rpartition(".")[0])
        found.append(
            dataclasses.replace(facts, spec=entry.spec, here=entry.here, bytes=entry.bytes) if facts else entry
        )
    return tuple(found)


def listing(wanted: Wanted | None = None) -> tuple[Entry, ...]:
    """What is here first, then what could be fetched."""
    wanted = wanted or Wanted()
    wanted.check()
    lying = {entry.spec: entry for entry in here()}
    rest = [entry for entry in entries() if entry.spec not in lying]
    return tuple(entry for entry in (*lying.values(), *rest) if wanted.passes(entry))


def record(name: str) -> Entry:
    """One backbone by its spec, or by a name that only one has."""
    known = {entry.spec: entry for entry in (*entries(), *here())}
    if name in known:
        return known[name]
    place, _, path = name.partition(":")
    if place == "local" or os.path.isdir(name):
        return _folder(Path(path if place == "local" else name).expanduser(), f"local:{path or name}")
    ends = [spec for spec in known if name in (spec.partition(":")[2], spec.rpartition("/")[2])]
    if len(ends) == 1:
        return known[ends[0]]
    near = ends or [spec for spec in known if name.lower() in spec.lower()]
    near = near or difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    hint = f" Near it: {', '.join(near[:5])}." if near else ""
    raise UnknownName(
        f"No '{name}' among the {len(known)} backbones of the catalogue and of this machine.{hint} Others of timm, "
        "torchvision and the hub work by their names all the same: timm:NAME, torchvision:NAME, hf:ORG/NAME"
    )


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def _at_most(value: int | None, limit: str, option: str) -> bool:
    return not limit or (value is not None and value <= amount(limit, option))


def _words(licence: str) -> list[str]:
    """A card's licence is prose that begins with a name: "Apache-2.0 for the weights; ..."."""
    return licence.lower().replace(";", " ").replace(",", " ").split()


def _bundled() -> Iterator[Entry]:
    from topwork.backbones.sources.bundled import DEFAULT, FOLDERS

    for card in sorted(FOLDERS.glob("*/card.json")):
        name = card.parent.name
        yield _folder(card.parent, "bundled" if name == DEFAULT else f"bundled:{name}")


def _local() -> Iterator[Entry]:
    from topwork.backbones.sources.local import folders

    for folder in folders():
        try:
            yield _folder(folder, f"local:{folder}")
        except BadWeights:  # no backbone
            continue


def _folder(folder: Path, spec: str) -> Entry:
    """What the card of a folder says; its weights are neither read nor checked."""
    from topwork.backbones.card_json import read_json

    if not folder.is_dir():
        raise UnknownName(f"The folder {folder} does not exist (backbone '{spec}')")
    path = folder / ("card.json" if (folder / "card.json").is_file() else "config.json")
    if not path.is_file():
        raise BadWeights(f"{folder} has no card.json and no config.json: it is no backbone folder")
    facts = read_json(path)
    size, mean, std = facts.get("input_size"), facts.get("mean"), facts.get("std")
    named = folder / str(facts.get("file") or HUB_FILES[0])
    kin = _kin(facts)
    return Entry(
        spec,
        modality=_modality(facts),
        family=kin.family if kin else str(facts.get("model_type") or ""),
        year=kin.year if kin else None,
        architecture=str(facts.get("architecture") or ""),
        depthwise=kin.depthwise if kin else None,
        parameters=_whole(facts.get("num_parameters")),
        multiply_adds=_whole(facts.get("multiply_adds")),
        features=_whole(facts.get("num_features")),
        input_px=_whole(size[1]) if isinstance(size, list) and len(size) == 3 else None,
        mean=tuple(mean) if isinstance(mean, list) else (),
        std=tuple(std) if isinstance(std, list) else (),
        trained_on=str(facts.get("trained_on") or ""),
        licence=str(facts.get("licence") or ""),
        bytes=_size(named),
        here=str(folder),
    )


def _modality(facts: dict[str, Any]) -> Modality:
    """Text and audio where a card says so; images otherwise."""
    said = facts.get("modality")
    if said in get_args(Modality):
        return cast(Modality, said)
    kind = f"{facts.get('model_type')}model("
    kin = next((entry for entry in entries() if entry.architecture.lower().startswith(kind)), None)
    return kin.modality if kin else "image"


def _kin(facts: dict[str, Any]) -> Entry | None:
    """The entry of the catalogue that has the same architecture."""
    said = str(facts.get("architecture") or "")
    call = re.search(r"create_model\('(\w+)'|torchvision\.models\.(\w+)\(|^(\w+)$", said)
    name = next((group for group in call.groups() if group), "") if call else ""
    return next((e for e in entries() if name and e.spec.partition(":")[2].partition(".")[0] == name), None)


def _hub() -> Iterator[Entry]:
    """Repositories in the hub's cache: models--ORG--NAME/snapshots/COMMIT/model.safetensors."""
    for folder in sorted(hub_cache().glob("models--*--*")):
        commits = folder / "snapshots"
        files = [file for name in HUB_FILES for file in commits.glob(f"*/{name}") if file.is_file()]
        if files:
            name = folder.name.removeprefix("models--").replace("--", "/", 1)
            spec = f"timm:{name.removeprefix('timm/')}" if name.startswith("timm/") else f"hf:{name}"
            yield Entry(spec, bytes=_size(files[0]), here=str(files[0].parent))


def _torch() -> Iterator[Entry]:
    """torchvision's files in torch's cache: NAME-HASH.pth, as the catalogue knows them."""
    for entry in entries():
        file = torch_cache() / entry.url.rpartition("/")[2]
        if entry.url and file.is_file():
            yield Entry(entry.spec, bytes=_size(file), here=str(file))


def hub_cache() -> Path:
    """Where the hub's own client keeps its files."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    home = os.environ.get("HF_HOME")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(home).expanduser() if home else Path(base) / "huggingface") / "hub"


def torch_cache() -> Path:
    """Where torch keeps the files that torchvision downloads."""
    home = os.environ.get("TORCH_HOME")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(home).expanduser() if home else Path(base) / "torch") / "hub" / "checkpoints"


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None
