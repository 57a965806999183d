"""A text file with one text per line, with its label in front or without: see `_lines.py` for what is told apart."""

from __future__ import annotations

import os
from dataclasses import dataclass

from topwork.sources._layout import TEXT_SUFFIXES
from topwork.sources._texts import Asked, Part, gather
from topwork.store import remote
from topwork.types import Dataset


@dataclass(frozen=True)
class TextFile:
    """One text per line; without labels it is something to pretrain on."""

    item_column: str | None = None  # where the columns are separated by tabs: column 1, column 2 ...
    label_column: str | None = None  # of COARSE:fine labels: label or fine
    split_column: str | None = None
    group_column: str | None = None
    separator: str | None = None  # between labels in one cell; "": one label per cell; None: | or ; where evident
    numeric: bool | None = None  # whether labels are numbers that measure something; None: guessed
    time_column: str | None = None  # when an item came to be, for by_time
    domain_column: str | None = None  # the world that it is from, for by_domain

    def accepts(self, uri: str) -> bool:
        """A file whose name ends like a text's."""
        return os.path.splitext(uri)[1].lower() in TEXT_SUFFIXES and remote.isfile(uri)

    def modality(self, uri: str) -> str:  # noqa: ARG002
        """Always texts."""
        return "text"

    def read(self, uri: str) -> Dataset:
        """One item per line."""
        return gather(uri, os.path.dirname(remote.absolute(uri)), [Part(uri)], Asked.of(self))
