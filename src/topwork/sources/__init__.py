"""Where items and their labels come from: one file per kind of source, found by being here.

@dataclass(frozen=True)
class Folder:                          # its fields are its options
    def accepts(self, uri) -> bool
    def modality(self, uri) -> str     # "image", "text" or "row"; where it is missing: images
    def read(self, uri) -> Dataset     # nothing is lost silently: `skipped` says what is left, `notes` what was guessed

read("photos/")                    the first source that accepts the uri
modality("reviews.csv")            what read would give, by names and first lines
items("photos/")                   unlabelled input of predict: paths of images at any depth, no Arrow needed
texts("reviews/")                  every text, one after the other, labelled or not: pretraining, predict
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any, Protocol

from topwork import plugins
from topwork.errors import BadData, BadSetting
from topwork.store import remote
from topwork.store.database import hidden, shown
from topwork.types import Dataset, Skipped

EXPECTED = (
    "a folder with one subfolder per class, or a table (csv, tsv, json, jsonl, parquet) with a path or text column, or "
    "columns of numbers, and a label column"
)

SPLITS = ("train", "val", "test")
_SPLIT = re.compile(
    r"(?:(train|training)|(val|valid|validation|dev)|(test|testing))(?:[ _-]?(?:set|split|images?|imgs?|data))?"
)


class Source(Protocol):
    """A place that items and labels are read from."""

    def accepts(self, uri: str) -> bool:
        """Whether this source reads such a uri; cheap."""
        ...

    def read(self, uri: str) -> Dataset:
        """All usable items; raises BadData when there is none."""
        ...


def read(uri: str | os.PathLike[str], **options: Any) -> Dataset:
    """Read a folder or table with the first source that accepts it; options that are None count as not given."""
    uri = remote.welcome(uri)
    return _source(uri, options).read(uri)


def modality(uri: str | os.PathLike[str], **options: Any) -> str:
    """What `read` would give, "image", "text" or "row"; cheap. "image" where it would give nothing: `read` says why."""
    uri = remote.welcome(uri)
    try:
        source = _source(uri, options)
        return source.modality(uri) if hasattr(source, "modality") else "image"
    except BadData:
        return "image"


def texts(uri: str | os.PathLike[str], skipped: list[Skipped] | None = None, **options: Any) -> Iterator[str]:
    """Every text of a file or folder, labelled or not, never all of them in memory; what cannot be read is `skipped`.

    A file of lines gives its lines, a table the cells of its text column, a folder the texts of all its files.
    """
    from topwork.sources.text_folder import stream

    yield from stream(remote.welcome(uri), [] if skipped is None else skipped, options)


def _source(uri: str, options: dict[str, Any]) -> Any:
    given = {name: value for name, value in options.items() if value is not None}
    for name in plugins.names("sources"):
        kind = plugins.find("sources", name)
        if not kind().accepts(uri):
            continue
        known = {f.name for f in dataclasses.fields(kind)}
        if "features" not in known and given.pop("features", None) is not None:
            raise BadSetting(f"{shown(uri)} is read as a {name}. Feature columns stand in a table")
        if "numeric" not in known and given.pop("numeric", False):
            raise BadSetting(f"{shown(uri)} is read as a {name} of classes. Numbers stand in a column of a table")
        if unknown := sorted(given.keys() - known):
            has = f"its options: {', '.join(sorted(known))}" if known else "it has no options"
            raise BadSetting(f"{', '.join(unknown)} cannot be used with {shown(uri)}: it is read as a {name}, {has}")
        return kind(**given)
    raise BadData(f"{hidden(uri)}: {_trouble(uri)}. Expected {EXPECTED}")


def items(uri: str | os.PathLike[str]) -> list[str]:
    """Paths of unlabelled images: the file itself, or every image at any depth of a folder, in order of their names."""
    from topwork.sources._walk import walk

    uri = remote.welcome(uri)
    if not remote.isdir(uri):
        if remote.exists(uri):
            return [uri]
        raise BadData(f"{uri}: does not exist. Expected an image or a folder of images")
    found = [os.path.join(uri, rel, name) for rel, listing in walk(uri) for name in listing.images]
    if not found:
        raise BadData(
            f"{uri}: no image in this folder or below it. Expected jpeg, png, webp, bmp, gif, tiff or pgm files"
        )
    return found


def split_of(name: str) -> str | None:
    """train, val or test when a folder or a table's cell is called so: "Training_Set", "valid", "test-images"."""
    match = _SPLIT.fullmatch(name.strip().casefold())
    return SPLITS[match.lastindex - 1] if match and match.lastindex else None


def _trouble(uri: str) -> str:
    if remote.is_remote(uri):
        ending = os.path.splitext(uri)[1].lower()
        return f"is a file of another kind ({ending or 'no suffix'})" if remote.isfile(uri) else "does not exist"
    if not os.path.lexists(uri):
        return "does not exist"
    if not os.path.exists(uri):
        return "is a link to something that does not exist"
    ending = os.path.splitext(uri)[1].lower()
    if ending in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"):
        return "is an archive; unpack it first"
    return f"is a file of another kind ({ending or 'no suffix'})"
