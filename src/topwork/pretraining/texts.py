"""Texts as the material of a pretraining: read one after the other, kept as windows of tokens on disk.

    gather(("reviews/", "news.txt")) -> TextMaterial        counts, a hash that names the texts in their order
    material.tokens(reader)          -> Tokens               memory-mapped: texts/KEY/ids.npy, ends.npy in the cache

Neither the texts nor their tokens are ever all in memory. What the data call val or test is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import settings, sources
from topwork.errors import BadData, StoreError
from topwork.modalities.text import Reader, Tokens
from topwork.store import locks, remote
from topwork.store.atomic import explain, new_folder
from topwork.types import Progress, Skipped, silent

AT_ONCE = 512  # texts that are read together
SHORTEST = 4  # tokens of a window, those around the text included; shorter ones teach nothing
MARKER = "texts.json"


@dataclass(frozen=True, eq=False)
class TextMaterial:
    """All texts, source after source."""

    uris: tuple[str, ...]
    counts: tuple[int, ...]  # of every source
    letters: int
    hash: str
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return sum(self.counts)

    def facts(self) -> list[dict[str, Any]]:
        """Plain JSON for a card."""
        return [
            {"name": os.path.basename(uri), "items": count, "classes": 0, "source": uri}
            for uri, count in zip(map(remote.absolute, self.uris), self.counts, strict=True)
        ]

    def __iter__(self) -> Iterator[str]:
        for uri in self.uris:
            yield from read(uri)

    def tokens(self, reader: Reader, progress: Progress = silent) -> Tokens:
        """The windows of all texts, from disk where they were read before."""
        hashed = hashlib.blake2b(self.hash.encode(), digest_size=16)
        for name, data in sorted(reader.files().items()):
            hashed.update(f"{name} {len(data)} ".encode() + data)
        folder = settings.cache_folder() / "texts" / hashed.hexdigest()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locks.held(f"texts {folder.name}"):
                if not (folder / MARKER).exists():
                    _make_room(folder.parent)
                    with new_folder(folder, MARKER) as building:
                        _write(building, self, reader, progress)
            os.utime(folder)
            return _open(folder)
        except OSError as error:
            raise error if isinstance(error, StoreError) else explain(error, folder) from error


def gather(uris: Sequence[str]) -> TextMaterial:
    """Count and name the texts of all sources; BadData where there are none."""
    counts, letters, skipped = [], 0, list[Skipped]()
    hashed = hashlib.blake2b(digest_size=16)
    uris = [remote.welcome(uri) for uri in uris]
    for uri in uris:
        count = 0
        for text in read(uri, skipped):
            data = text.encode("utf-8", "surrogatepass")
            hashed.update(len(data).to_bytes(8, "little") + data)
            count += 1
            letters += len(text)
        if not count:
            raise BadData(f"{uri}: no texts. Expected a file of lines, a folder of .txt files, or a table of texts")
        counts.append(count)
    return TextMaterial(tuple(uris), tuple(counts), letters, hashed.hexdigest(), tuple(skipped))


def read(uri: str, skipped: list[Skipped] | None = None) -> Iterator[str]:
    """The texts of a source that say something."""
    return (text for text in sources.texts(uri, skipped) if text.strip())


def _write(folder: Path, material: TextMaterial, reader: Reader, progress: Progress) -> None:
    """All windows, one after the other."""
    texts, done, total = iter(material), 0, 0
    with (folder / "ids.raw").open("wb") as ids, (folder / "ends.raw").open("wb") as ends:
        ends.write(np.zeros(1, np.int64).tobytes())
        while some := list(islice(texts, AT_ONCE)):
            found = reader.read(some)
            lengths = found.lengths
            kept = lengths >= SHORTEST
            ids.write(found.ids[np.repeat(kept, lengths)].astype(np.int32).tobytes())
            ends.write((total + np.cumsum(lengths[kept])).astype(np.int64).tobytes())
            total += int(lengths[kept].sum())
            done += len(some)
            progress("read", done, len(material))
    if not total:
        raise BadData(f"{material.uris[0]}: no text has {SHORTEST} tokens or more")
    (folder / MARKER).write_text(json.dumps({"texts": done, "tokens": total}) + "\n")


def _open(folder: Path) -> Tokens:
    ids: NDArray[np.int32] = np.memmap(folder / "ids.raw", np.int32, "r")
    ends: NDArray[np.int64] = np.memmap(folder / "ends.raw", np.int64, "r")
    W = len(ends) - 1
    return Tokens(ids, None, ends, np.arange(W), np.zeros(W, np.bool_))


def _make_room(folder: Path) -> None:
    """What was used longest ago leaves, until the tokens take at most half of the cache's limit."""
    limit = settings.cache_limit_bytes().value // 2
    old = sorted((f for f in folder.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime)
    sizes = {f: sum(file.stat().st_size for file in f.glob("*")) for f in old}
    for one in old:
        if sum(sizes.values()) <= limit:
            return
        with contextlib.suppress(OSError):
            shutil.rmtree(one)
        del sizes[one]
