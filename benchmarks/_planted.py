"""Real sets with known damage: who was planted where, of which kind, and what it is a copy of.

    a third of the items judges and is never touched nor copied; the rest is damaged and handed to `topwork inspect`
    5 % of the labels are flipped to another class, 5 % of the items are there a second time, 3 % are broken

Copies go to a random split and keep the true label of what they show; broken files lose what they showed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator

FLIPPED, COPIED, BROKEN = 0.05, 0.05, 0.03  # shares of the items
SPLITS = ("train", "test")


@dataclass
class Planted:
    """A damaged set, and the truth about it, by item name."""

    folder: Path  # what inspect is given: a folder, or a table of texts
    judge: list[tuple[str, str]]  # inputs (paths or texts) and true labels, apart from all others
    whole: list[tuple[str, str]]  # the same for the training part as it was
    copies: dict[str, tuple[str, str]] = field(default_factory=dict)  # item -> (kind, item that it is a copy of)
    broken: dict[str, str] = field(default_factory=dict)  # item -> kind
    flipped: dict[str, str] = field(default_factory=dict)  # item -> its true label
    labels: dict[str, str] = field(default_factory=dict)  # item -> label given, of all items


def images(rows: list[tuple[Path, str]], folder: Path, seed: int) -> Planted:
    """rows: files and their classes -> folder/SPLIT/CLASS/FILE."""
    from PIL import Image, ImageOps

    rng = np.random.default_rng(seed)
    names = sorted({label for _, label in rows})
    judge, rest, split = divided(rows, rng)
    planted = Planted(
        folder, [(str(p), y) for p, y in judge], [(str(p), y) for (p, y), s in zip(rest, split, strict=True) if not s]
    )
    flip, copy, broken = _chosen(len(rest), rng)

    def put(data: bytes, side: int, label: str, name: str) -> str:
        item = f"{SPLITS[side]}/{label}/{name}"
        (folder / item).parent.mkdir(parents=True, exist_ok=True)
        (folder / item).write_bytes(data)
        planted.labels[item] = label
        return item

    originals: dict[int, str] = {}
    for row, (path, truth) in enumerate(rest):
        label = _other(truth, names, rng) if row in flip else truth
        data = path.read_bytes()
        kind = broken.get(row)
        damaged = _BREAKS[kind](data, rng) if kind else data
        item = put(damaged, split[row], label, f"{row:05d}_{path.stem[:20]}{path.suffix.lower()}")
        originals[row] = item
        if kind:
            planted.broken[item] = kind
        if row in flip:
            planted.flipped[item] = truth
    for number, row in enumerate(sorted(copy)):
        path, truth = rest[row]
        kind = list(_COPIES)[number % len(_COPIES)]
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        data = path.read_bytes() if kind == "exact" else _COPIES[kind](picture, rng)
        suffix = path.suffix.lower() if kind == "exact" else ".jpg"
        item = put(data, int(rng.integers(2)), truth, f"{rng.integers(10**9):09d}{suffix}")
        planted.copies[item] = kind, originals[row]
    return planted


def texts(rows: list[tuple[str, str]], folder: Path, seed: int) -> Planted:
    """rows: texts and their classes -> folder/{train,test}.csv."""
    rng = np.random.default_rng(seed)
    names = sorted({label for _, label in rows})
    judge, rest, split = divided(rows, rng)
    planted = Planted(folder, judge, [row for row, s in zip(rest, split, strict=True) if not s])
    flip, copy, broken = _chosen(len(rest), rng)
    lines: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])

    def put(text: str, side: int, label: str) -> str:
        lines[side].append((text, label))
        item = f"{SPLITS[side]}.csv line {len(lines[side]) + 1}"
        planted.labels[item] = label
        return item

    originals: dict[int, str] = {}
    for row, (text, truth) in enumerate(rest):
        label = _other(truth, names, rng) if row in flip else truth
        kind = broken.get(row)
        originals[row] = item = put(_TEXT_BREAKS[kind](text) if kind else text, split[row], label)
        if kind:
            planted.broken[item] = kind
        if row in flip:
            planted.flipped[item] = truth
    for number, row in enumerate(sorted(copy)):
        text, truth = rest[row]
        kind = list(_TEXT_COPIES)[number % len(_TEXT_COPIES)]
        item = put(_TEXT_COPIES[kind](text, rng), int(rng.integers(2)), truth)
        planted.copies[item] = kind, originals[row]
    folder.mkdir(parents=True)
    for side, name in enumerate(SPLITS):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *lines[side]])
    return planted


def divided(rows: list[Any], rng: Rng) -> tuple[list[Any], list[Any], list[int]]:
    """The judging third, the rest in an order of chance, and whether each of it is of the test split (1)."""
    order = rng.permutation(len(rows))
    cut = len(rows) // 3
    rest = [rows[i] for i in order[cut:]]
    return [rows[i] for i in order[:cut]], rest, (rng.random(len(rest)) < 0.25).astype(int).tolist()


def _chosen(N: int, rng: Rng) -> tuple[set[int], set[int], dict[int, str]]:
    """Rows with flipped labels, rows that are copied, rows that break and how; no row is in two of them."""
    order = rng.permutation(N).tolist()
    flips, copies, breaks = (round(share * N) for share in (FLIPPED, COPIED, BROKEN))
    kinds = list(_BREAKS)
    broken = {row: kinds[i % len(kinds)] for i, row in enumerate(order[flips + copies : flips + copies + breaks])}
    return set(order[:flips]), set(order[flips : flips + copies]), broken


def _other(truth: str, names: list[str], rng: Rng) -> str:
    return names[(names.index(truth) + int(rng.integers(1, len(names)))) % len(names)]


def _jpeg(picture, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _resized(picture, rng: Rng) -> bytes:
    share = rng.uniform(0.5, 0.8)
    return _jpeg(picture.resize([max(8, round(side * share)) for side in picture.size]), 90)


def _cropped(picture, rng: Rng) -> bytes:
    """0.9 of each side, at a random place."""
    w, h = (round(0.9 * side) for side in picture.size)
    x, y = (int(rng.integers(0, side - kept + 1)) for side, kept in zip(picture.size, (w, h), strict=True))
    return _jpeg(picture.crop((x, y, x + w, y + h)), 90)


def _mirrored(picture, rng: Rng) -> bytes:  # noqa: ARG001 as the others
    from PIL import ImageOps

    return _jpeg(ImageOps.mirror(picture), 90)


_COPIES: dict[str, Callable[..., bytes]] = {
    "exact": lambda picture, rng: b"",  # noqa: ARG005 the bytes of the file
    "resized": _resized,
    "re-encoded": lambda picture, rng: _jpeg(picture, int(rng.integers(40, 80))),
    "cropped": _cropped,
    "mirrored": _mirrored,
}


def _grey_below(data: bytes, rng: Rng) -> bytes:
    """A JPEG whose transfer broke off and was closed nevertheless: decoders fill the rest with grey."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        whole = _jpeg(opened.convert("RGB"), 90)
    return whole[: int(len(whole) * rng.uniform(0.4, 0.8))] + b"\xff\xd9"


def _blank(data: bytes, rng: Rng) -> bytes:  # noqa: ARG001 as the others
    from PIL import Image

    return _jpeg(Image.new("RGB", (160, 120), tuple(int(v) for v in rng.integers(0, 256, 3))), 90)


_BREAKS: dict[str, Callable[[bytes, Rng], bytes]] = {
    "truncated": lambda data, rng: data[: int(len(data) * rng.uniform(0.2, 0.8))],
    "empty": lambda data, rng: b"",  # noqa: ARG005
    "no image": lambda data, rng: b"<html><body>404 Not Found</body></html>",  # noqa: ARG005
    "closed early": _grey_below,
    "one colour": _blank,
}
_TEXT_BREAKS: dict[str, Callable[[str], str]] = {
    "truncated": lambda text: "?!",  # noqa: ARG005
    "empty": lambda text: " ",  # noqa: ARG005
    "no image": lambda text: "...",  # noqa: ARG005
    "closed early": lambda text: text.replace(" ", "\u00e2\u20ac\u2122", 1) + " caf\u00c3\u00a9",
    "one colour": lambda text: f"<p>{text}</p><br />",
}  # the same kinds: only marks, nothing, only marks, in the wrong encoding, with markup
_TEXT_COPIES: dict[str, Callable[[str, Rng], str]] = {
    "exact": lambda text, rng: text,  # noqa: ARG005
    "case": lambda text, rng: text.upper(),  # noqa: ARG005
    "marks": lambda text, rng: text.rstrip(" .!") + " ...",  # noqa: ARG005
    "a letter": lambda text, rng: _letter(text, rng),
    "a word less": lambda text, rng: _word(text, rng),
}


def _letter(text: str, rng: Rng) -> str:
    at = int(rng.integers(len(text)))
    return text[:at] + "x" + text[at + 1 :]


def _word(text: str, rng: Rng) -> str:
    parts = text.split(" ")
    at = int(rng.integers(len(parts)))
    return " ".join(parts[:at] + parts[at + 1 :])
