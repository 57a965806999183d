"""A folder per class, with or without train, val and test folders above.

    photos/CLASS/**/image.jpg
    photos/{train,val,test}/CLASS/**/image.jpg       also training_set, valid, validation, dev, test_images, in any case

A folder that holds nothing but one other folder of folders (flowers_v2/flowers/CLASS) is looked through. Hidden and
system files are ignored and counted; every other file that is not used is named in `skipped`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from topwork.errors import BadData
from topwork.modalities.image import READABLE
from topwork.sources import SPLITS, split_of
from topwork.sources._layout import layout
from topwork.sources._walk import Listing, any_image, join, look, walk
from topwork.store import remote
from topwork.types import Dataset, Skipped

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Folder:
    """One subfolder per class."""

    def accepts(self, uri: str) -> bool:
        """Any folder but those of texts."""
        return remote.isdir(uri) and layout(uri) is None

    def read(self, uri: str) -> Dataset:
        """Class = first folder below the root or below the split folder."""
        harvest = _Harvest(remote.absolute(uri))
        base = harvest.look_through("")
        splits = {name: split_of(name) for name in harvest.holding(base)}
        if "train" in splits.values() or (splits and all(splits.values())):
            harvest.note_loose(base, look(os.path.join(harvest.root, base)))
            for name, split in splits.items():
                if split is None:
                    harvest.skip(join(base, name) + "/", "beside the split folders, but none of train, val, test")
                else:
                    harvest.classes(harvest.look_through(join(base, name), inside_split=True), split)
        else:
            harvest.classes(base, None)
        return harvest.dataset(uri)


class _Harvest:
    """What one reading has gathered so far; a chunk is one directory of one class."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.chunks: list[tuple[pa.Array, str, str | None]] = []  # items, class, split
        self.skipped: list[Skipped] = []
        self.notes: list[str] = []
        self.ignored = 0
        self.loose = 0  # images outside any class folder

    def skip(self, item: str, reason: str) -> None:
        self.skipped.append(Skipped(item, reason))

    def note_files(self, rel: str, listing: Listing) -> None:
        """Files that are not images; images that lie above the class folders."""
        self.ignored += listing.ignored
        for name, reason in listing.others:
            self.skip(join(rel, name) if name else f"{rel or '.'}/", reason)

    def note_loose(self, rel: str, listing: Listing) -> None:
        self.note_files(rel, listing)
        self.loose += len(listing.images)
        if len(listing.images) == 1:
            self.skip(join(rel, listing.images[0]), "not in a class folder")
        elif listing.images:
            count, first = len(listing.images), listing.images[0]
            self.skip(f"{rel or '.'}/", f"{count:,} images that are not in a class folder ({first}, ...)")

    def holding(self, rel: str) -> list[str]:
        """Subfolders with an image at some depth."""
        folder = os.path.join(self.root, rel)
        return [name for name in look(folder).folders if any_image(os.path.join(folder, name))]

    def look_through(self, rel: str, inside_split: bool = False) -> str:
        """Go down while there is nothing to choose: one folder, no image beside it, and folders of images inside."""
        while True:
            names = self.holding(rel)
            here = look(os.path.join(self.root, rel))
            if len(names) != 1 or here.images or (split_of(names[0]) and not inside_split):
                return rel
            inner = join(rel, names[0])
            if not self.holding(inner) or look(os.path.join(self.root, inner)).images:
                return rel
            self.note_files(rel, here)
            self.notes.append(f"'{rel or os.path.basename(self.root)}' holds only '{names[0]}': looked inside it")
            rel = inner

    def classes(self, rel: str, split: str | None) -> None:
        """Every subfolder is a class; whatever lies below belongs to it."""
        import pyarrow as pa

        top = look(os.path.join(self.root, rel))
        self.note_loose(rel, top)
        nested: dict[str, int] = {}
        for label in top.folders:
            used = 0
            for folder, listing in walk(self.root, join(rel, label)):
                self.note_files(folder, listing)
                if not listing.images:
                    continue
                used += len(listing.images)
                if folder != join(rel, label):
                    nested[folder.removeprefix(join(rel, label)).split("/")[1]] = 1
                self.chunks.append((pa.array([f"{folder}/{name}" for name in listing.images]), label, split))
            if not used:
                self.notes.append(f"folder '{join(rel, label)}' holds no image: not counted as a class")
        if nested:
            names = ", ".join(sorted(nested)[:4]) + (" ..." if len(nested) > 4 else "")
            first = f"{', '.join(top.folders[:4])}{' ...' if len(top.folders) > 4 else ''}"
            self.notes.append(f"the first folder level is the class ({first}); folders below it ({names}) are not")

    def dataset(self, uri: str) -> Dataset:
        import numpy as np
        import pyarrow as pa

        if not self.chunks:
            raise BadData(f"{uri}: {self._nothing()}")
        labels = tuple(sorted({label for _, label, _ in self.chunks}))
        number = {label: index for index, label in enumerate(labels)}
        lengths = [len(chunk) for chunk, _, _ in self.chunks]
        targets = np.repeat(np.array([number[label] for _, label, _ in self.chunks], np.int32), lengths)
        sides = np.repeat(np.array([SPLITS.index(s) if s else 0 for _, _, s in self.chunks], np.int8), lengths)
        unsplit = np.repeat(np.array([s is None for _, _, s in self.chunks]), lengths)
        table = pa.table(
            {
                "item": pa.chunked_array([chunk for chunk, _, _ in self.chunks], pa.string()),
                "target": pa.array(targets),
                "split": pa.DictionaryArray.from_arrays(pa.array(sides, mask=unsplit), pa.array(SPLITS)),
            }
        )
        if self.ignored:
            self.notes.append(f"{self.ignored:,} hidden or system files and folders ignored")
        name = remote.title(self.root)
        history = (f"read folder {name}: {len(table):,} items, {len(labels)} classes",)
        return Dataset(table, self.root, labels, False, name, tuple(self.skipped), tuple(self.notes), history)

    def _nothing(self) -> str:
        expected = "Expected CLASS/image.jpg or train/CLASS/image.jpg inside it"
        if self.loose:
            return f"{self.loose:,} images but no class folders. {expected}, or a table with a path and a label column"
        if self.skipped:
            others = f"{len(self.skipped):,} other files, e.g. {self.skipped[0].item}"
            return f"no image ({READABLE}) among {others}. {expected}"
        return f"is empty. {expected}"
