"""Rows of a text file with one text per line, with or without its label in front.

    I am still waiting.                       plain       column text
    __label__card I am still waiting.         fastText    columns label, text; several labels: a list
    DESC:manner How did serfdom develop?      TREC        columns label (DESC), fine (DESC:manner), text
    1 a stirring, funny film                  number      columns label, text
    sport<tab>The match is over.              tabs        a table without header, read as csv is

What it is, is told by its first thousand lines. `Reviews` reads the blocks <review> ... </review> of the multi-domain
sentiment dataset (Blitzer et al., 2007), which look like XML but are none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

from topwork.errors import BadData
from topwork.sources._encoding import Encoding, encoding_of, is_damaged
from topwork.sources._rows import NOT_UTF8, READERS, SAMPLE_ROWS, Csv, Row
from topwork.store import remote

_FASTTEXT = re.compile(r"((?:__label__\S+\s+)+)(.*)")
_TREC = re.compile(r"([A-Za-z]\w*):([\w-]+)\s+(.*)")
_NUMBER = re.compile(r"([-+]?\d{1,2})\s+(.*)")
_NUL = "holds a NUL byte"


class Lines:
    """One row per line that is not blank."""

    unit = "line"

    def __init__(self, path: str, names: Collection[str] = ()) -> None:  # noqa: ARG002 they have none
        self.path = path
        self.encoding: Encoding = encoding_of(path)
        self.notes = [self.encoding.said] if self.encoding.said else []
        sample = [line for _, line in islice(self._texts(), SAMPLE_ROWS) if "\0" not in line]
        self.shape, self.columns = _shape(sample)
        self.several = self.shape == "fasttext" and any(line.count("__label__") > 1 for line in sample)
        if self.shape == "trec":
            self.notes.append(
                "lines begin with COARSE:fine labels: the coarse one is the label, 'fine' the other column"
            )
        elif self.shape != "plain":
            self.notes.append(f"lines begin with their label, e.g. '{sample[0].split()[0]}'")

    def rows(self) -> Iterator[Row]:
        """Label and text of every line."""
        for number, line in self._texts():
            if "\0" in line:
                yield number, _NUL
            elif self.encoding.damaged and is_damaged(line):
                yield number, NOT_UTF8
            else:
                yield number, self._cells(line)

    def _cells(self, line: str) -> list[Any] | str:
        if self.shape == "plain":
            return [line]
        if self.shape == "fasttext":
            match = _FASTTEXT.fullmatch(line)
            labels = [label.removeprefix("__label__") for label in match[1].split()] if match else []
            return [labels if self.several else labels[0], match[2]] if match else "no __label__ in front of the text"
        if self.shape == "trec":
            match = _TREC.fullmatch(line)
            return [match[1], f"{match[1]}:{match[2]}", match[3]] if match else "no COARSE:fine in front of the text"
        match = _NUMBER.fullmatch(line)
        return [match[1], match[2]] if match else "no number in front of the text"

    def _texts(self) -> Iterator[tuple[int, str]]:
        with self.encoding.open(self.path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.strip()


class Reviews:
    """One row per <review> block: review_text, title, rating."""

    unit = "line"
    columns = ("text", "title", "rating")

    def __init__(self, path: str, names: Collection[str] = ()) -> None:  # noqa: ARG002 always the same
        self.path = path
        self.encoding: Encoding = encoding_of(path)
        self.notes = [self.encoding.said] if self.encoding.said else []

    def rows(self) -> Iterator[Row]:
        """The line on which a block begins, and what it says."""
        start, tag, said = 0, "", {}
        with self.encoding.open(self.path) as file:
            for number, line in enumerate(file, 1):
                word = line.strip()
                if word == "<review>":
                    start, tag, said = number, "", {}
                elif word == "</review>":
                    yield start, self._cells(said)
                elif re.fullmatch(r"</\w+>", word):
                    tag = ""
                elif not tag and (match := re.fullmatch(r"<(\w+)>", word)):
                    tag = match[1]
                elif tag:
                    said[tag] = said.get(tag, "") + line

    def _cells(self, said: dict[str, str]) -> list[Any] | str:
        cells = [said.get(name, "").strip() for name in ("review_text", "title", "rating")]
        if any("\0" in cell for cell in cells):
            return _NUL
        return NOT_UTF8 if self.encoding.damaged and any(map(is_damaged, cells)) else cells


def open_rows(path: str, names: Collection[str] = ()) -> Any:
    """The reader of any table or text file."""
    suffix = os.path.splitext(path)[1].lower()
    if not remote.getsize(path):
        raise BadData(f"{path}: empty file (0 bytes). Expected a header line and one line per item")
    if suffix in READERS:
        return READERS[suffix](path, names)
    with open(remote.local(path), "rb") as file:
        head = file.read(4096)
    if re.match(rb"\s*(<data>\s*)?<review>\s", head):
        return Reviews(path)
    lines = Lines(path)
    if lines.shape == "tabs":
        return Csv(path, names, delimiter="\t")
    return lines


def _shape(sample: list[str]) -> tuple[str, tuple[str, ...]]:
    """What at least 98 % of the lines look like, and the columns of that."""
    if sample:

        def share(fits: Any) -> bool:
            return sum(bool(fits(line)) for line in sample) >= 0.98 * len(sample)

        if share(_FASTTEXT.fullmatch):
            return "fasttext", ("label", "text")
        tabs = sample[0].count("\t")
        if tabs and share(lambda line: line.count("\t") == tabs):
            return "tabs", ()
        if share(_TREC.fullmatch) and len({line.split(":")[0] for line in sample}) <= max(2, len(sample) / 5):
            return "trec", ("label", "fine", "text")
        if share(_NUMBER.fullmatch) and len({line.split()[0] for line in sample}) <= max(2, len(sample) / 5):
            return "number", ("label", "text")
    return "plain", ("text",)
