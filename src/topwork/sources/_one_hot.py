"""Columns of zeros and ones, one for each label, as a single column of lists: label_column="toxic,insult,threat"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from topwork.errors import BadSetting
from topwork.sources._rows import Row

FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True, "no": False, "yes": True}


class OneHot:
    """A reader whose columns of labels stand together; all else is the other reader's."""

    def __init__(self, reader: Any, names: list[str], called: str) -> None:
        self.reader, self.names = reader, names
        self.at = [reader.columns.index(name) for name in names]
        self.others = [i for i in range(len(reader.columns)) if i not in self.at]
        self.columns = [*(reader.columns[i] for i in self.others), called]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)

    def rows(self) -> Iterator[Row]:
        """The other cells, then the names of the labels that are set."""
        for line, cells in self.reader.rows():
            if isinstance(cells, str):
                yield line, cells
                continue
            flags = [FLAGS.get(str(cells[i]).strip().lower()) for i in self.at]
            if None in flags:
                bad = flags.index(None)
                yield line, f"'{str(cells[self.at[bad]])[:40]}' in column '{self.names[bad]}', expected 0 or 1"
                continue
            own = [name for name, flag in zip(self.names, flags, strict=True) if flag]
            yield line, [*(cells[i] for i in self.others), own]


def together(reader: Any, label_column: str | None) -> Any:
    """The reader, its columns of labels as one where several are named with commas between."""
    if label_column is None or "," not in label_column or label_column in reader.columns:
        return reader
    names = [name.strip() for name in label_column.split(",")]
    if missing := [name for name in names if name not in reader.columns]:
        raise BadSetting(f"{reader.path} has no column '{missing[0]}'. Its columns: {', '.join(reader.columns)}")
    return OneHot(reader, names, label_column)
