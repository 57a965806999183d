"""What a folder without images is: tables, files of lines, or a folder of texts per class. Names and first lines only.

tables    {train,dev,test}.tsv    train-00000-of-00002.parquet    reviews.csv    train.label, TREC_10.label
lines     rt-polarity.{pos,neg}   {train,test}.{pos,neg}          one text per line, the file is the label
files     pos/1.txt, neg/1.txt    {train,test}/{pos,neg}/1.txt    one text per file, the folder is the label
several   CR/, MR/, SUBJ/         each of them is one of the above: the user has to name one
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice

from topwork.errors import BadData, StoreError
from topwork.sources import split_of
from topwork.sources._encoding import encoding_of
from topwork.sources._lines import Lines, Reviews, open_rows
from topwork.sources._rows import READERS
from topwork.sources._texts import Part
from topwork.sources._walk import Listing, any_image, look, walk
from topwork.store import remote
from topwork.types import Skipped

TEXT_SUFFIXES = (".txt", ".text", ".label", ".labels", ".review", ".sent", ".ft", ".train", ".test", ".dev", ".valid")
UNLABELLED = ("unsup", "unlabeled", "unlabelled", "unsupervised")
_ABOUT = re.compile(
    r"[._].*|(readme|licen[cs]e|copying|source|notice|citation|changelog|changes|authors|about|version|manifest|"
    r"requirements|categories|classes|labels|vocab\w*|urls?_\w+)(\..*)?|.*\.(md|rst|html?|pdf|json|ya?ml|toml|xml|py|ipynb|"
    r"log|cfg|ini|feat|vocab|zip|gz|tar|tgz|bz2|xz|7z|rar|npy|npz|pkl|bin|pt|wav|mp3|flac|ogg|gif|svg|doc|docx|xls|xlsx|"
    r"db|sqlite|sh|bat|tex|bib)",
    re.IGNORECASE,
)
_MOST_CLASS_FILES = 200  # more files of lines beside each other are documents


@dataclass
class Layout:
    """Kind, and the files with what their names say."""

    kind: str  # tables, lines, files, several
    base: str  # folder in which they lie
    parts: list[Part] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of kind several: the folders


def layout(uri: str) -> Layout | None:
    """The layout of a folder of texts; None: images, or nothing that we know."""
    if not remote.isdir(uri):
        return None
    base, here, notes = remote.absolute(uri), look(uri), []
    while not (here.images or len(here.folders) != 1 or _usable(base, here) or split_of(here.folders[0])):
        notes.append(f"'{os.path.basename(base)}' holds only '{here.folders[0]}': looked inside it")
        base = os.path.join(base, here.folders[0])
        here = look(base)
        if len(notes) > 20:  # a link to a folder above
            return None
    found = _layout(base, here)
    if found is not None:
        found.notes[:0] = notes
        read = {os.path.basename(part.path) for part in found.parts}
        about = [name for name in _about(here) if name not in read]
        found.skipped += [Skipped(name, "about the data, not one of its texts") for name in about]
    return found


def split_in(stem: str) -> str | None:
    """train, val or test where one word of a file's name says so: "sst_train", "train-00000-of-00002"."""
    words = [split_of(stem), *map(split_of, re.split(r"[-_. ]", stem))]
    return next((word for word in words if word), None)


def is_about(name: str) -> bool:
    """Whether a file's name says that it is about the data: README, LICENSE, SOURCE.md."""
    return _ABOUT.fullmatch(name) is not None


def _layout(base: str, here: Listing) -> Layout | None:
    usable = _usable(base, here)
    tables = [name for name in usable if os.path.splitext(name)[1].lower() in READERS]
    if any(any_image(os.path.join(base, name)) for name in here.folders):
        return None
    found = None if here.images else _class_folders(base, here)
    if found is None and tables:
        found = _tables(base, tables)
        found.skipped += [Skipped(name, f"not read beside {tables[0]}") for name in usable if name not in tables]
        found.skipped += [Skipped(f"{name}/", f"not looked into beside {tables[0]}") for name in here.folders]
    if found is None and not here.images:
        lines = [name for name in usable if name not in tables]
        found = _lines(base, lines) or (None if lines else _several(base, here))
        if found is not None and lines:
            found.skipped += [Skipped(f"{name}/", f"not looked into beside {lines[0]}") for name in here.folders]
    return found


def _usable(base: str, here: Listing) -> list[str]:
    """Files that may hold the data, not empty."""
    others = [name for name, reason in here.others if name and reason.startswith("not an image")]
    names = [name for name in others if not is_about(name)]
    if not names and not here.images:  # train.json, test.json; beside data json files tell about them
        names = [name for name in others if _is_json(name) and split_in(_stem(name))]
    return [name for name in names if remote.getsize(os.path.join(base, name))]


def _is_json(name: str) -> bool:
    return name.lower().endswith(".json")


def _about(here: Listing) -> list[str]:
    return [name for name, reason in here.others if reason.startswith("not an image") and is_about(name)]


def _tables(base: str, names: list[str]) -> Layout:
    """One table, or those of a kind that are called train, val and test."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kinds[os.path.splitext(name)[1].lower()].append(name)
    best = max(kinds.values(), key=lambda group: (len({split_in(_stem(n)) for n in group} - {None}), len(group)))
    others = [name for name in names if name not in best]
    done = _by_split(base, best, "tables")
    done.skipped += [Skipped(name, f"not read beside {best[0]}") for name in others]
    return done


def _by_split(base: str, names: list[str], kind: str) -> Layout:
    """Parts of the files of one kind by the split that their names say; one alone is the whole set."""
    done = Layout(kind, base)
    sides = {name: split_in(_stem(name)) for name in names}
    if len(names) == 1 or set(sides.values()) == {"train"}:
        done.parts = [Part(os.path.join(base, name)) for name in names]
        done.notes += [f"read from '{name}', the only one of its kind in the folder" for name in names[:1]]
        return done
    if "train" not in sides.values():
        done.names = names
        return done
    rest = [name for name, side in sides.items() if side is None]
    lines = os.path.splitext(names[0])[1].lower() not in READERS  # train_5500.label, TREC_10.label
    if lines and len(rest) == 1 and "test" not in sides.values():
        sides[rest[0]] = "test"
        done.notes.append(f"'{rest[0]}' is taken for the test set: it lies beside '{_first(sides, 'train')}'")
        rest = []
    order = [name for side in ("train", "val", "test") for name in names if sides[name] == side]
    done.parts = [Part(os.path.join(base, name), sides[name]) for name in order]
    done.skipped = [Skipped(name, "its name says neither train, val nor test") for name in rest]
    return done


def _lines(base: str, names: list[str]) -> Layout | None:
    """Files of lines: with labels in front, with the label in the file's name, or without labels."""
    readable = {name: reader for name in names if (reader := _reader(os.path.join(base, name))) is not None}
    bad = [Skipped(name, "not a text file") for name in names if name not in readable]
    if not readable:
        return None
    labelled = [n for n, r in readable.items() if not isinstance(r, Reviews) and getattr(r, "shape", "tabs") != "plain"]
    if labelled:
        done = _by_split(base, labelled, "tables")
        bad += [Skipped(name, "has no label in front of its texts") for name in readable if name not in labelled]
    else:
        done = _class_files(base, list(readable))
    done.skipped += bad
    return done


def _class_files(base: str, names: list[str]) -> Layout:
    """The part of the names in which they differ is the label; where that says nothing they are unlabelled texts."""
    sides = {name: split_in(_stem(name)) for name in names}
    suffixes = {os.path.splitext(name)[1].lower() for name in names}
    if len(suffixes) > 1 and not suffixes & {*TEXT_SUFFIXES, ""}:
        labels = {name: os.path.splitext(name)[1][1:] for name in names}
    else:
        words = {name: [w for w in re.split(r"[-_. ]", name) if w and not split_of(w)] for name in names}
        often = Counter(word for own in words.values() for word in set(own))
        labels = {name: "_".join(w for w in own if often[w] < len(names)) for name, own in words.items()}
    without = {name for name in names if labels[name].lower() in UNLABELLED}
    classes = {labels[name] for name in names if name not in without}
    per_split = Counter((sides[name], labels[name]) for name in names)
    if (
        len(classes) >= 2
        and "" not in classes
        and len(names) <= _MOST_CLASS_FILES
        and max(per_split.values()) == 1
        and all(_has_lines(os.path.join(base, name)) for name in names)
    ):
        example = {labels[name]: name for name in reversed(names) if name not in without}
        said = ", ".join(f"'{label}' ({example[label]})" for label in sorted(example)[:4]) + " ..." * (len(example) > 4)
        done = Layout("lines", base, notes=[f"one text per line, the file is the label: {said}"])
        order = [n for side in ("train", None, "val", "test") for n in names if sides[n] == side and n not in without]
        done.parts = [Part(os.path.join(base, name), sides[name], labels[name]) for name in order]
        done.parts += [Part(os.path.join(base, name), None, None, True) for name in names if name in without]
        return done
    if len(names) == 1:
        return Layout("lines", base, [Part(os.path.join(base, names[0]), unlabelled=True)])
    parts = [Part(os.path.join(base, name), unlabelled=True) for name in names]
    return Layout("files", base, parts, notes=["one text per file, none has a label"])


def _class_folders(base: str, here: Listing) -> Layout | None:
    """A folder of text files per class, with or without train, val and test above."""
    splits = {name: split_of(name) for name in here.folders}
    if not any(splits.values()) and len(splits) in (2, 3):  # 20news-bydate-train, 20news-bydate-test
        inside = {name: split_in(name) for name in here.folders}
        splits = inside if all(inside.values()) and len(set(inside.values())) == len(inside) else splits
    done = Layout("files", base)
    if "train" in splits.values():
        for name in sorted(splits, key=lambda n: ("train", "val", "test", None).index(splits[n])):
            if splits[name] is None:
                done.skipped.append(Skipped(f"{name}/", "beside the split folders, but none of train, val, test"))
            else:
                _class_parts(base, name, splits[name], done)
    else:
        _class_parts(base, "", None, done)
    classes = {part.label for part in done.parts if part.label is not None}
    if len(classes) < 2:
        return None
    if any(part.unlabelled for part in done.parts):
        done.notes.append(f"folders called {', '.join(UNLABELLED)} hold texts without label")
    return done


def _class_parts(base: str, above: str, split: str | None, done: Layout) -> None:
    for label in look(os.path.join(base, above)).folders:
        rel = f"{above}/{label}" if above else label
        without = label.lower() in UNLABELLED
        for folder, listing in walk(base, rel):
            for name, reason in listing.others:
                plain = os.path.splitext(name)[1].lower() in ("", ".txt", ".text") and not is_about(name)
                if name and plain and reason.startswith("not an image"):
                    path = os.path.join(base, folder, name)
                    done.parts.append(Part(path, None if without else split, None if without else label, without))
                    continue
                done.skipped.append(Skipped(f"{folder}/{name}", reason.replace("an image", "a text")))


def _several(base: str, here: Listing) -> Layout | None:
    """Folders that are each a dataset of texts of their own."""
    inner = {name: found for name in islice(here.folders, 50) if (found := _inner(os.path.join(base, name)))}
    if len(inner) == 1:
        return next(iter(inner.values()))
    return Layout("several", base, names=list(inner)) if inner else None


def _inner(path: str) -> Layout | None:
    here = look(path)
    usable = _usable(path, here)
    tables = [name for name in usable if os.path.splitext(name)[1].lower() in READERS]
    found = _class_folders(path, here) or (_tables(path, tables) if tables else None)
    return found or (_lines(path, usable) if usable else None)


def _reader(path: str) -> object | None:
    try:
        with open(remote.local(path), "rb") as file:
            if file.read(4096).count(0) and not encoding_of(path).name.startswith("utf-"):
                return None
        return open_rows(path)
    except StoreError:
        raise
    except (BadData, OSError):
        return None


def _has_lines(path: str) -> bool:
    rows = open_rows(path)
    return len(list(islice(rows.rows(), 2))) == 2 and isinstance(rows, Lines | Reviews)


def _stem(name: str) -> str:
    return os.path.splitext(name)[0] if os.path.splitext(name)[1].lower() not in (".train", ".test", ".dev") else name


def _first(sides: dict[str, str | None], split: str) -> str:
    return next(name for name, side in sides.items() if side == split)
