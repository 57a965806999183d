"""A new dataset without what tells who is meant; the old one is never touched.

    texts      what recognisers find is masked or under a pseudonym (modalities/redaction.py), in items' own words, in
               domains and in groups; groups whose names tell somebody are numbered
    images     copies without metadata, upright (image_metadata.py), faces blurred where a detector is given (faces.py)

    NEW/...jpg, NEW/items.parquet         path or text, label, split, group, domain, time; `sources/cleaned.py` reads it
    NEW/redaction.json, NEW/REDACTED.md   what was found, counts only
    NEW.csv, NEW.redaction.json           of texts as one table

Labels stay as they are, and so does what is written inside a picture.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topwork.data.faces import Detector, blurred
from topwork.data.image_metadata import is_animated, rewritten, strip
from topwork.data.write import columns_of, table_bytes, write_table
from topwork.errors import BadData, BadSetting, StoreError
from topwork.modalities.image import decode, read_bytes
from topwork.modalities.redaction import Redaction
from topwork.store.atomic import check_replaceable, new_folder, write_file
from topwork.types import VERSION, Dataset, Progress, Skipped, silent

MARKER, TABLE, HISTORY, REPORT = "REDACTED.md", "items.parquet", "history.json", "redaction.json"
TABLES = (".csv", ".parquet")
BATCH = 256  # images between two words of progress


@dataclass
class Found:
    """How often each kind was found, and in how many items."""

    counts: Counter[str] = field(default_factory=Counter)
    items: Counter[str] = field(default_factory=Counter)

    def add(self, of_item: Mapping[str, int]) -> None:
        """What one item held."""
        self.counts.update(of_item)
        self.items.update(kind for kind, count in of_item.items() if count)

    def facts(self) -> dict[str, dict[str, int]]:
        """Plain JSON, the most frequent first."""
        return {kind: {"count": count, "items": self.items[kind]} for kind, count in self.counts.most_common() if count}


def masked(dataset: Dataset, redaction: Redaction, found: Found | None = None, progress: Progress = silent) -> Dataset:
    """The dataset of texts with everything that is found replaced; texts that held nothing stay as they are."""
    import pyarrow as pa

    found = Found() if found is None else found
    texts = dataset.table["text"].to_pylist()
    for row, text in enumerate(texts):
        held: Counter[str] = Counter()
        texts[row] = redaction.text(text or "", held)
        found.add(held)
        if row % BATCH == 0 or row == len(texts) - 1:
            progress("redact", row + 1, len(texts))
    done = f"redacted: {sum(found.counts.values()):,} places in {len(texts):,} texts, {redaction.how}"
    dataset = dataset.with_column("text", pa.array(texts, pa.string()), history=done)
    return _columns_masked(dataset, redaction, found)


def check_target(dataset: Dataset, out: Path) -> None:
    """Refuse, before any work, a place that we may not write to."""
    if out.suffix in TABLES:
        if dataset.modality != "text":
            raise BadSetting(f"--out {out}: images are copied into a folder. Expected a folder's name")
        if out.exists() and not _beside(out).exists():
            raise StoreError(f"{out} exists and was not written by topwork redact. Choose another --out")
        return
    check_replaceable(out, MARKER)
    old, new = Path(dataset.root or ".").resolve(), out.resolve()
    if new == old or (dataset.modality == "image" and new in old.parents):
        raise BadSetting(f"--out {out} holds the data themselves. They are never touched: choose another")


def write_texts(
    dataset: Dataset, redaction: Redaction, out: Path, facts: Mapping[str, Any], progress: Progress = silent
) -> dict[str, Any]:
    """A table, or a folder with one; returns the report."""
    found = Found()
    new = masked(dataset, redaction, found, progress)
    told = {**_told(new, found, redaction), **facts}
    if out.suffix in TABLES:
        write_file(_beside(out), _json(told))
        write_table(new, out)  # last: where it is, all is there
        return told
    with new_folder(out, MARKER) as folder:
        (folder / TABLE).write_bytes(table_bytes(columns_of(new, joined=False), ".parquet"))
        _papers(folder, new, told)
    return told


def write_images(
    dataset: Dataset,
    redaction: Redaction,
    out: Path,
    facts: Mapping[str, Any],
    detector: Detector | None = None,
    threads: int = 2,
    progress: Progress = silent,
) -> dict[str, Any]:
    """A folder of clean copies; those that cannot be read are left out; returns the report."""
    found, how = Found(), Counter[str]()
    skipped: list[Skipped] = []
    rows, places = [], []
    items, paths = dataset.table["item"].to_pylist(), dataset.paths()
    taken: set[str] = set()

    def one(path: str) -> tuple[bytes, Counter[str], str] | BadData:
        try:
            return _clean(path, detector)
        except BadData as error:
            return error

    with new_folder(out, MARKER) as folder, ThreadPoolExecutor(max(1, threads)) as pool:
        for start in range(0, len(paths), BATCH):
            for row, answer in enumerate(pool.map(one, paths[start : start + BATCH]), start):
                name = _named(_inside(items[row]), redaction)
                if isinstance(answer, BadData):
                    skipped.append(Skipped(name, str(answer).replace(paths[row], name)))
                    continue
                data, held, done = answer
                place = _free(name, taken)
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).write_bytes(data)
                rows.append(row)
                places.append(place)
                found.add(held)
                how[done] += 1
            progress("redact", min(start + BATCH, len(paths)), len(paths))
        if not rows:
            raise BadData(f"{dataset.name}: none of its {len(dataset):,} images can be read, e.g. {skipped[0].reason}")
        new = dataset.take(rows, history=f"redacted: {len(rows):,} images without metadata")
        new = _columns_masked(new.replace(skipped=(*dataset.skipped, *skipped)), redaction, found)
        told = {**_told(new, found, redaction), "written": dict(how.most_common()), **facts}
        columns = {**columns_of(new, joined=False), "path": places}
        (folder / TABLE).write_bytes(table_bytes(columns, ".parquet"))
        _papers(folder, new, told)
    return told


def _clean(path: str, detector: Detector | None) -> tuple[bytes, Counter[str], str]:
    """A clean file, what it held, and how it was made."""
    done = strip(read_bytes(path))
    if detector is None:
        return done.data, done.found, done.how
    pixels = decode(done.data)
    boxes = detector.boxes(pixels)
    if not len(boxes) and not is_animated(done.data):  # of a film the first picture stays: nobody looked at the others
        return done.data, done.found, done.how
    done.found["face"] += len(boxes)
    return rewritten(done.data, blurred(pixels, boxes)), done.found, "blurred" if len(boxes) else "rewritten"


def _columns_masked(dataset: Dataset, redaction: Redaction, found: Found) -> Dataset:
    """Domains masked; groups numbered where their names tell somebody."""
    import pyarrow as pa

    for name in ("domain", "group"):
        if name not in dataset.columns:
            continue
        coded = dataset.table[name].combine_chunks().cast(pa.string()).dictionary_encode()
        held: Counter[str] = Counter()
        old = coded.dictionary.to_pylist()
        new = [redaction.text(value, held) for value in old]
        if new == old:
            continue
        found.add(held)
        new = [f"group {number}" for number in range(1, len(old) + 1)] if name == "group" else new
        dataset = dataset.with_column(name, pa.array(new, pa.string()).take(coded.indices))
    return dataset


def _told(dataset: Dataset, found: Found, redaction: Redaction) -> dict[str, Any]:
    """The report: counts only."""
    return {
        "topwork": VERSION,
        "kind": "redacted",
        "modality": dataset.modality,
        "items": len(dataset),
        "left_out": len(dataset.skipped),
        "how": redaction.how,
        "kinds": list(redaction.recognisers),
        "found": found.facts(),
    }


def _papers(folder: Path, dataset: Dataset, told: Mapping[str, Any]) -> None:
    """What `sources/cleaned.py` needs, and what people read."""
    history = {
        "topwork": VERSION,
        "kind": "redacted",
        "name": dataset.name,
        "modality": dataset.modality,
        "multilabel": dataset.multilabel,
        "label": dataset.labels[0] if dataset.numeric and dataset.labels else "label",
        "history": list(dataset.history),
    }
    (folder / HISTORY).write_bytes(_json(history))
    (folder / REPORT).write_bytes(_json(told))
    rows = [f"| {kind} | {fact['count']:,} | {fact['items']:,} |" for kind, fact in told["found"].items()]
    lines = [f"# {dataset.name}, redacted", "", *summary(told), "", "| found | times | items |", "|---|---|---|", *rows]
    (folder / MARKER).write_text("\n".join([*lines, ""]), encoding="utf-8")


def summary(told: Mapping[str, Any]) -> list[str]:
    """The report in words, without the table."""
    what = f"{told['items']:,} {told['modality']}s"
    left = f", {told['left_out']:,} left out because they cannot be read" if told["left_out"] else ""
    verb = {"mask": "masked", "pseudonym": "under pseudonyms"}[told["how"]]
    if told["modality"] == "image":
        ways = ", ".join(f"{count:,} {how}" for how, count in told.get("written", {}).items())
        return [f"{what} without metadata: {ways}{left}"]
    return [f"{what}, {sum(fact['count'] for fact in told['found'].values()):,} places {verb}{left}"]


def _inside(item: str) -> str:
    """A path below the new folder, whatever the old one was."""
    path = os.path.normpath(item).replace(os.sep, "/")
    return os.path.basename(path) if os.path.isabs(item) or path.startswith("..") or "://" in item else path


def _named(path: str, redaction: Redaction) -> str:
    """A path whose parts tell nobody."""
    stem, suffix = os.path.splitext(path)
    return "/".join(redaction.text(part) for part in stem.split("/")) + suffix


def _free(path: str, taken: set[str]) -> str:
    """The path, with a number where it is taken, whatever the case; never one of our own names."""
    stem, suffix = os.path.splitext(path)
    number, free = 1, path
    while free.casefold() in taken or free in (MARKER, TABLE, HISTORY, REPORT):
        number += 1
        free = f"{stem}_{number}{suffix}"
    taken.add(free.casefold())
    return free


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}.{REPORT}")


def _json(told: Mapping[str, Any]) -> bytes:
    return (json.dumps(told, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "backslashreplace")
