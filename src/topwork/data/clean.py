"""A new dataset without what is wrong with the old one, which is never touched.

    write(dataset, changes, out)
        NEW/CLASS/name.jpg, NEW/train/CLASS/name.jpg     copies of the files, or hard links; their bytes are compared
        NEW/items.parquet                                path or text, label, split, group, and what it was called
        NEW/history.json, NEW/CLEANED.md                 everything that was dropped or changed, with its reason
        out.csv, out.parquet                             a table only: images stay where they are

`sources/cleaned.py` reads such a folder with its splits and groups. It appears at once or not at all; undoing is
reading the old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topwork.data.proposals import Proposal
from topwork.data.write import SEPARATOR, columns_of, table_bytes, write_table
from topwork.errors import BadData, BadSetting, StoreError
from topwork.modalities.image import read_bytes
from topwork.store import remote
from topwork.store.atomic import check_replaceable, new_folder, write_file
from topwork.types import VERSION, Dataset, Progress, Skipped, silent

MARKER = "CLEANED.md"
TABLE, HISTORY = "items.parquet", "history.json"
UNSAFE = frozenset('/\\:*?"<>|\0')
LONGEST = 200  # bytes of a folder's or file's name


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What was done."""

    out: Path
    dataset: Dataset  # what is left, with items as in the old one
    dropped: tuple[Skipped, ...]
    changed: tuple[dict[str, Any], ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """In words."""
        reasons = Counter(reason_kind(one.reason) for one in self.dropped)
        said = [f"{self.out}: {len(self.dataset):,} items stay, {len(self.dropped):,} left out"]
        said += [f"  {count:,} {reason}" for reason, count in reasons.most_common()]
        kinds = Counter(one["action"] for one in self.changed)
        words = {"relabel": "relabelled", "group": "put into groups"}
        said += [f"  {count:,} {words[kind]}" for kind, count in kinds.items()]
        return said


def reason_kind(reason: str) -> str:
    """What reasons of one kind have in common: the part before names and numbers."""
    for start in ("copy of", "also measured on", "label is wrong"):
        if reason.startswith(start):
            return {"copy of": "copies", "also measured on": "training copies of what measures"}.get(
                start, "wrong labels"
            )
    return reason.partition(":")[0]


def check_target(out: Path, source: str | os.PathLike[str] | None, root: str | None = None) -> None:
    """Refuse a place that is the old data, lies inside it or around it, or that we did not write.

    `root`: where paths of a table begin; a new folder may lie beside the table.
    """
    new = out.resolve()
    if source is not None and os.path.exists(source):
        old = Path(source).resolve()
        if new == old or old in new.parents or new in old.parents:
            raise BadSetting(
                f"--out {out} and {source} lie in each other. The old data are never touched: choose another"
            )
    if root is not None and (new == Path(root).resolve() or new in Path(root).resolve().parents):
        raise BadSetting(f"--out {out} holds the old data in {root}. They are never touched: choose another")
    if out.suffix in (".csv", ".parquet"):
        if out.is_dir():
            raise BadSetting(f"--out {out} is a folder. Expected a table's name")
        beside = _beside(out, HISTORY)
        if out.exists() and not beside.exists():
            raise StoreError(f"{out} exists and was not written by topwork clean. Choose another --out")
        return
    check_replaceable(out, MARKER)


def write(
    dataset: Dataset,
    plan: Mapping[int, Proposal],
    out: Path,
    *,
    link: bool = False,
    facts: Mapping[str, Any] | None = None,
    hashed: Callable[[Dataset], str] | None = None,
    progress: Progress = silent,
) -> Cleaned:
    """The inspected dataset without the rows that the plan drops, relabelled and grouped as it says.

    `facts` go into history.json as they are; hashed(dataset) names the new data there.
    """
    stay = [row for row in range(len(dataset)) if row not in plan or plan[row].action != "drop"]
    if not stay:
        raise BadData(f"{dataset.name}: nothing would be left of {len(dataset):,} items")
    items = dataset.table["item"]
    gone = tuple(
        Skipped(items[row].as_py(), plan[row].reason)
        for row in range(len(dataset))
        if row in plan and plan[row].action == "drop"
    )
    dropped = (*dataset.skipped, *gone)
    changed = tuple(
        {
            "item": items[row].as_py(),
            "action": plan[row].action,
            "from": _label(dataset, row) if plan[row].action == "relabel" else "",
            "to": plan[row].to,
            "reason": plan[row].reason,
        }
        for row in stay
        if row in plan and plan[row].action in ("relabel", "group")
    )
    new = _changed(dataset, plan).take(stay)
    said = f"cleaned: {len(gone):,} items left out, {len(changed):,} changed"
    new = new.replace(skipped=dropped, history=(*dataset.history, said))
    done = Cleaned(out, new, dropped, changed, {**(facts or {}), **({"hash": hashed(new)} if hashed else {})})
    if out.suffix in (".csv", ".parquet"):
        for name, data in _papers(done).items():
            write_file(_beside(out, name), data)
        write_table(new, out)  # last: where it is, all is there
        return done
    with new_folder(out, MARKER) as folder:
        columns = columns_of(new, joined=False)
        if new.modality == "image":
            columns["path"] = _copied(new, folder, link, progress)
        columns["was"] = new.table["item"].to_pylist()
        (folder / TABLE).write_bytes(table_bytes(columns, ".parquet"))
        for name, data in _papers(done).items():
            (folder / name).write_bytes(data)
    return done


def _changed(dataset: Dataset, plan: Mapping[int, Proposal]) -> Dataset:
    """With new labels and groups; a label that is new to the data is refused."""
    import pyarrow as pa

    number = {label: index for index, label in enumerate(dataset.labels)}
    targets = dataset.table["target"].to_pylist()
    groups: list[Any] = dataset.table["group"].to_pylist() if "group" in dataset.columns else [None] * len(dataset)
    relabelled = grouped = False
    for row, one in plan.items():
        if one.action == "relabel":
            names = one.to.split(SEPARATOR) if dataset.multilabel else [one.to]
            if dataset.numeric:
                raise BadData(f"{dataset.name}: its targets are numbers, they cannot be relabelled")
            for name in names:
                if name and name not in number:
                    known = ", ".join(map(repr, dataset.labels[:10]))
                    raise BadData(f"'{name}' is no label of {dataset.name}. Its labels: {known}")
            codes = [number[name] for name in names if name]
            targets[row] = codes if dataset.multilabel else codes[0]
            relabelled = True
        elif one.action == "group":
            groups[row] = groups[row] if groups[row] is not None else one.to
            grouped = True
    if relabelled:
        dataset = dataset.with_column("target", pa.array(targets, dataset.table["target"].type))
    return dataset.with_column("group", pa.array(groups, pa.string())) if grouped else dataset


def _copied(dataset: Dataset, folder: Path, link: bool, progress: Progress) -> list[str]:
    """Every file under its class; paths relative to the folder."""
    tree = not dataset.multilabel and not dataset.numeric and all(_safe(label) for label in dataset.labels)
    splits = dataset.table["split"].cast("string").to_pylist()
    divided = any(splits)
    targets, contents = dataset.table["target"].to_pylist(), dataset.table["content"].to_pylist()
    taken: set[str] = set()
    paths = []
    for row, old in enumerate(dataset.paths()):
        where = []
        if divided:
            where.append(splits[row] or "unassigned")
        if tree:
            where.append("unlabelled" if targets[row] is None else dataset.labels[targets[row]])
        elif not divided:
            where.append("images")
        path = _free("/".join([*where, _file_name(old)]), taken)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        data = _same(old, contents[row])
        if link:
            _link(old, folder / path)
        else:
            (folder / path).write_bytes(data)
            if not remote.is_remote(old):
                shutil.copystat(old, folder / path)
        paths.append(path)
        progress("copy", row + 1, len(dataset))
    return paths


def _same(path: str, content: bytes) -> bytes:
    """A file's bytes, if they are those that were inspected."""
    data = read_bytes(path)
    if hashlib.blake2b(data, digest_size=16).digest() != content:
        raise BadData(f"{path} has changed since it was inspected. Run again")
    return data


def _link(old: str, new: Path) -> None:
    try:
        os.link(os.path.realpath(old), new)
    except OSError as error:
        raise StoreError(f"{old} cannot be linked ({error.strerror}); leave out --link to copy") from error


def _free(path: str, taken: set[str]) -> str:
    """The path, with a number where it is taken, whatever the case: some disks know no case."""
    stem, suffix = os.path.splitext(path)
    number, free = 1, path
    while free.casefold() in taken:
        number += 1
        free = f"{stem}_{number}{suffix}"
    taken.add(free.casefold())
    return free


def _safe(label: str) -> bool:
    """Whether a label can be a folder's name on any disk, and is not taken for a split or something hidden."""
    return (
        bool(label.strip(". "))
        and not label.startswith(".")
        and label == label.strip()
        and not label.endswith(".")
        and not UNSAFE & set(label)
        and label.isprintable()
        and len(label.encode()) <= LONGEST
    )


def _file_name(path: str) -> str:
    """The old name, without what other disks refuse."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    stem = "".join("_" if letter in UNSAFE or not letter.isprintable() else letter for letter in stem).strip(". ")
    return (stem.encode()[:LONGEST].decode(errors="ignore") or "item") + suffix


def _label(dataset: Dataset, row: int) -> str:
    target = dataset.table["target"][row].as_py()
    if target is None:
        return ""
    return SEPARATOR.join(dataset.labels[c] for c in target) if dataset.multilabel else dataset.labels[target]


def _papers(done: Cleaned) -> dict[str, bytes]:
    """history.json and CLEANED.md."""
    told = {
        "topwork": VERSION,
        "kind": "cleaned",
        **done.facts,
        "name": done.dataset.name,
        "modality": done.dataset.modality,
        "multilabel": done.dataset.multilabel,
        "numeric": done.dataset.numeric,
        "label": done.dataset.labels[0] if done.dataset.numeric else "label",
        "items": len(done.dataset),
        "dropped": [{"item": one.item, "reason": one.reason} for one in done.dropped],
        "changed": list(done.changed),
        "history": list(done.dataset.history),
    }
    text = json.dumps(told, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")
    return {HISTORY: text, MARKER: _readme(done).encode("utf-8", "backslashreplace")}


def _readme(done: Cleaned) -> str:
    facts = done.facts
    lines = [
        f"# {done.dataset.name}, cleaned",
        "",
        f"{len(done.dataset):,} items stay, {len(done.dropped):,} are left out, {len(done.changed):,} are changed. "
        "The old data are as they were; to undo, use them.",
        "",
        *(f"* {name}: `{facts[key]}`" for key, name in _FACTS.items() if facts.get(key)),
        "",
        "| item | what | reason |",
        "|---|---|---|",
        *(f"| {_cell(one.item)} | left out | {_cell(one.reason)} |" for one in done.dropped),
        *(f"| {_cell(one['item'])} | {_cell(_what(one))} | {_cell(one['reason'])} |" for one in done.changed),
        "",
    ]
    return "\n".join(lines)


_FACTS = {"source": "from", "source_hash": "hash of the old data", "hash": "hash of the new data", "created": "on",
          "command": "by"}  # fmt: skip


def _what(one: Mapping[str, Any]) -> str:
    return f"{one['from']} -> {one['to']}" if one["action"] == "relabel" else f"group {one['to']}"


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split())


def _beside(out: Path, name: str) -> Path:
    return out.with_name(f"{out.stem}.{name}")
