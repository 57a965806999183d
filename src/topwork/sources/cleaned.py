"""A folder that `topwork clean` or `redact` has written: a table of labels, splits and groups, files beside it."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any

from topwork.errors import BadData
from topwork.sources.table import Table
from topwork.types import WRITTEN, Dataset

TABLE, HISTORY, MARKERS = "items.parquet", "history.json", {"cleaned": "CLEANED.md", "redacted": "REDACTED.md"}


@dataclass(frozen=True)
class Cleaned:
    """What is left after cleaning."""

    def accepts(self, uri: str) -> bool:
        """A folder with the three files that cleaning leaves, or redacting."""
        here = [
            all(os.path.isfile(os.path.join(uri, name)) for name in (TABLE, HISTORY, one)) for one in MARKERS.values()
        ]
        return any(here)

    def modality(self, uri: str) -> str:
        """As it was written down."""
        known = self._told(uri).get("modality")
        return known if known in WRITTEN else "image"

    def read(self, uri: str) -> Dataset:
        """Through the table, with the history of the data."""
        told = self._told(uri)
        path = os.path.join(uri, TABLE)
        found = self._table(path, told).read(path)
        name = str(told.get("name") or os.path.basename(os.path.abspath(uri)))
        before = tuple(map(str, told.get("history") or ()))
        return found.replace(name=name, notes=(), history=(*before, *found.history))

    def _table(self, path: str, told: dict[str, Any]) -> Table:
        import pyarrow.parquet as parquet

        names = parquet.read_schema(path).names
        item = "path" if "path" in names else "text" if "text" in names else "text_a,text_b"
        label = str(told.get("label") or "label")
        wanted: dict[str, Any] = {"item_column": item, "label_column": label, "split_column": "split", "separator": ""}
        if told.get("modality") == "row":
            beside = {label, "split", "group", "domain", "time", "was"}
            wanted |= {"item_column": None, "features": tuple(name for name in names if name not in beside)}
        if told.get("numeric"):
            wanted["numeric"] = True
        known = {one.name for one in dataclasses.fields(Table)}
        wanted |= {f"{one}_column": one for one in ("group", "domain", "time") if one in names}
        return Table(**{name: value for name, value in wanted.items() if name in known})

    def _told(self, uri: str) -> dict[str, Any]:
        try:
            with open(os.path.join(uri, HISTORY), encoding="utf-8") as file:
                told = json.load(file)
        except (OSError, ValueError) as error:
            raise BadData(f"{uri}: its {HISTORY} cannot be read. Clean the data again") from error
        if not isinstance(told, dict) or told.get("kind") not in MARKERS:
            raise BadData(f"{uri}: its {HISTORY} was not written by topwork clean. Clean the data again")
        return told
