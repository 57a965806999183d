"""What a model says of rows of a database, written back into a table there, or into another database.

    query -> (key, text or image)  one read-only transaction           sources/sql.py
          -> (key, answer)         while later rows are fetched        the model, in chunks of CHUNK rows
          -> table                 one short transaction at the end    store/sql_table.py: all rows or none

Columns: the key under its own name, label and probability (of several labels: labels, a JSON list, too; of numbers:
value, low and high instead), model and model_hash (sha256 of model.onnx), predicted_at (UTC, one moment for all). Rows
are appended: an earlier answer stays, and predicted_at tells them apart. Answers wait in memory, about 200 bytes each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from topwork.errors import BadData, BadSetting
from topwork.sources import sql
from topwork.store.database import Database, is_database
from topwork.store.sql_table import Column, SqlTable
from topwork.types import Skipped

if TYPE_CHECKING:
    from topwork.artefact.model import Model, Prediction

CHUNK = 256  # rows that are judged together: n-grams cost far less so


@dataclass(frozen=True)
class Judged:
    """Answers, once, in the order of the rows: Prediction or Skipped, with the key of its row."""

    key: str  # the column's name
    kind: Literal["integer", "text"]
    notes: tuple[str, ...]
    answers: Iterator[tuple[Any, Prediction | Skipped]]

    @classmethod
    def by_input(cls, answers: Iterable[Prediction | Skipped]) -> Judged:
        """Answers about files or texts, which their own names name."""
        return cls("input", "text", (), ((one.item if isinstance(one, Skipped) else one.input, one) for one in answers))


@contextlib.contextmanager
def judged(
    model: Model, uri: str, query: str | None, key: str | None, item_column: str | None, top: int = 1
) -> Iterator[Judged]:
    """What a model says of every row, while the block lasts; the query is run in one read-only transaction."""
    skipped: list[Skipped] = []
    features = model.columns if model.modality == "row" else None
    with sql.inputs(uri, query, key, item_column, skipped, features) as asked:
        if asked.modality != model.modality:
            raise BadData(f"the query gives {asked.modality}s, but {model.folder} is a model of {model.modality}s")

        def answers() -> Iterator[tuple[Any, Prediction | Skipped]]:
            while True:
                chunk = list(islice(asked.pairs, CHUNK))
                yield from ((None, one) for one in skipped)
                skipped.clear()
                if not chunk:
                    return
                said = model.stream([given for _, given in chunk], top=top)
                for (name, _), answer in zip(chunk, said, strict=True):
                    where = f"{asked.key} {name}"
                    if isinstance(answer, Skipped):
                        yield name, Skipped(where, answer.reason)
                    else:
                        yield name, dataclasses.replace(answer, input=str(name))

        yield Judged(asked.key, asked.kind, asked.notes, answers())


def write_back(
    model: Model,
    opening: AbstractContextManager[Judged],
    to: str,
    table: str | None,
    *,
    listen: Callable[[Prediction | Skipped], Any] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Write all answers of `judged(...)` into a table of the database `to`: how many. `listen` hears each as it comes.

    The query is over before the first row is written: an SQLite file is never read and written at once.
    """
    with opening as found:
        target = checked(model, to, table, found, say)
        for note in found.notes:
            say(note)
        kept = []
        for name, answer in found.answers:
            listen(answer)
            if not isinstance(answer, Skipped):
                kept.append((_key(name, found), *_told(model, answer)))
    if not kept:
        return 0
    about = (model.manifest.get("name") or model.folder.name, model.manifest["files"]["model.onnx"]["sha256"])
    now = datetime.now(UTC).replace(microsecond=0)
    return target.append((*row, *about, now) for row in kept)


def checked(model: Model, to: str, table: str | None, found: Judged, say: Callable[[str], None]) -> SqlTable:
    """The table that answers go to, which can be written."""
    if not is_database(to):
        raise BadSetting(f"--to {to}: expected sql (the database of the query) or the address of a database")
    if not table:
        raise BadSetting("--to needs the name of a table, e.g. --table predictions")
    key = Column(found.key, found.kind)
    target = SqlTable(Database(to), table, (key, *_columns(model)))
    how = "rows are appended" if target.check() else "a new one"
    say(f"answers go to the table {table} of {target.database.shown}: {how}")
    return target


def _columns(model: Model) -> Iterator[Column]:
    if model.numeric:
        yield from (Column(name, "real") for name in ("value", "low", "high"))
    else:
        yield Column("label", "text")
        yield Column("probability", "real")
    if model.multilabel:
        yield Column("labels", "text")
    yield from (Column("model", "text"), Column("model_hash", "text"), Column("predicted_at", "time"))


def _told(model: Model, answer: Prediction) -> tuple[Any, ...]:
    if model.numeric:
        return answer.value, answer.low, answer.high
    several = (json.dumps(answer.labels, ensure_ascii=False),) if model.multilabel else ()
    return answer.label, answer.probability, *several


def _key(value: Any, found: Judged) -> Any:
    if found.kind == "text":
        return str(value)
    if type(value) is not int:
        raise BadData(f"{found.key} {value!r} is not a whole number as the first ones are. Choose another --key")
    return value
