"""What an inspection has found, as a page and as lines for the terminal; the numbers are those of `inspection.tell`.

The page shows findings with a proposal each, examples of those that have items, and a map of all items: what a backbone
takes for alike lies side by side. Like the report it is one file that needs nothing else and can load nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topwork.evaluation import charts, report, wording
from topwork.evaluation.plain_json import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

EXAMPLES = 12  # items of a finding that the page shows
POINTS = 600  # of the map
STAMPS = 36  # thumbnails on the map itself
COLOURS = 10  # classes with a colour of their own; the smaller ones are grey
APART = (0.085, 0.13)  # of two thumbnails, in parts of the map's width and height
ACTIONS = {"drop": "drop", "relabel": "relabel", "group": "group", "keep": "look"}
SCORES = {"label_errors": "probability that the label is wrong", "outliers": "cosine distance to its neighbours"}
WITHOUT_EXAMPLES = ("unlabelled", "leaking_groups")
_COLOUR = {"error": "bold red", "warning": "yellow", "note": "blue"}
_SECTIONS = (
    ("findings", "Findings"),
    ("examples", "Examples"),
    ("map", "Map"),
    ("data", "{items} per class"),
    ("skipped", "Left out"),
    ("provenance", "Provenance"),
)


def render(numbers: Mapping[str, Any], pictures: Mapping[int, bytes], texts: Mapping[int, str]) -> str:
    """The page. pictures: row -> bytes of a small image; texts: row -> its text."""
    n = clean(numbers)
    thing, images = wording.thing(n), {row: report._data_uri(data) for row, data in pictures.items()}
    splits = (n.get("facts") or {}).get("splits") or {}
    numeric = any("median" in counts for counts in splits.values())
    counts = {name.replace("unassigned", "all"): tally for name, tally in splits.items()}
    shown = {
        "examples": bool(shelves(n)),
        "map": bool(n.get("map")),
        "data": bool(counts) and not numeric and any(map(len, counts.values())),
        "skipped": bool(n.get("skipped")),
    }
    style = report.asset("report.css") + report.asset("inspection.css")
    script = report.asset("report.js") + report.asset("inspection.js")
    return (
        report.environment()
        .get_template("inspection.html")
        .render(
            n=n,
            thing=thing,
            sentences=sentences(n),
            sections=[
                (name, title.format(items=f"{thing.capitalize()}s"))
                for name, title in _SECTIONS
                if shown.get(name, True)
            ],
            shelves=shelves(n),
            actions=ACTIONS,
            images=images,
            texts=texts,
            map=chart(n, images) if n.get("map") else None,
            class_bars=charts.class_bars(counts) if shown["data"] else None,
            scores=SCORES,
            left=left(n),
            style=style,
            style_hash=report.sha256_of(style),
            script=script,
            script_hash=report.sha256_of(script),
        )
    )


def rows_shown(numbers: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Rows whose picture or text the page shows: as examples, and on the map."""
    examples = {one["row"] for shelf in shelves(numbers) for one in shelf["items"] if one["action"] != "unreadable"}
    told = numbers.get("map")
    return sorted(examples), sorted(told["rows"][at] for at in _drawn(numbers)) if told else []


def shelves(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Findings with the items that are worth showing, the most serious proposals first."""
    order = {"drop": 0, "relabel": 0, "group": 1, "keep": 1}
    found = []
    for finding in numbers.get("findings") or ():
        items = finding.get("items") or []
        if finding["kind"] in WITHOUT_EXAMPLES or not items or finding["kind"] == "unreadable":
            continue
        if finding["kind"].endswith("_duplicates"):  # a copy beside the one that stays
            items = sorted(items, key=lambda one: (one["reason"].partition("copy of ")[2] or one["item"], one["row"]))
        else:
            items = sorted(items, key=lambda one: order.get(one["action"], 1))
        items = items[:EXAMPLES]
        found.append({**finding, "items": items, "more": finding["count"] - len(items)})
    return found


def left(numbers: Mapping[str, Any]) -> dict[str, int]:
    """How many items the proposals would drop and relabel; each counts once, by the strongest."""
    strongest: dict[int, str] = {}
    for finding in numbers.get("findings") or ():
        for one in finding.get("items") or ():
            if one["action"] == "drop" or (one["action"] == "relabel" and strongest.get(one["row"]) != "drop"):
                strongest[one["row"]] = one["action"]
    actions = list(strongest.values())
    return {"drop": actions.count("drop"), "relabel": actions.count("relabel")}


def sentences(n: Mapping[str, Any]) -> list[str]:
    """How the data look, in words."""
    many, findings = f"{wording.thing(n)}s", n.get("findings") or []
    serious = sum(f["severity"] == "error" for f in findings)
    check = sum(f["severity"] == "warning" for f in findings)
    said = []
    if not findings:
        said.append("Nothing to mend was found.")
    elif serious or check:
        parts = [f"{serious} serious finding{'s' * (serious > 1)}"] if serious else []
        parts += [f"{check} finding{'s' * (check > 1)} to check"] if check else []
        said.append(f"{' and '.join(parts).capitalize()}; the others are notes.")
    else:
        said.append("Nothing serious was found, only notes.")
    go = left(n)
    if any(go.values()):
        parts = [f"drops {go['drop']:,} {many}"] if go["drop"] else []
        parts += [f"changes {go['relabel']:,} labels"] if go["relabel"] else []
        said.append(f"Cleaning as proposed {' and '.join(parts)}; the old data stay as they are.")
    deep = (n.get("facts") or {}).get("deep")
    if deep and deep.get("accuracy") is not None:
        right = wording.percent(deep["accuracy"])
        said.append(
            f"{deep['backbone']} is right about the class of {right} of the {many} it has not seen (cross-validated): "
            "what it says of labels is as good as that."
        )
    elif not deep:
        said.append("This was a quick look: wrong labels, outliers and groups need features (--deep).")
    return said


def chart(n: Mapping[str, Any], images: Mapping[int, str]) -> dict[str, Any]:
    """The map's points in percent, their colours, and which of them carry a picture."""
    told = n["map"]
    what = _said_of(n)
    points = []
    for at in _drawn(n):
        row, (x, y) = told["rows"][at], told["places"][at]
        label = told["labels"][at] if told.get("labels") else ""
        points.append({"row": row, "x": round(3 + 94 * x, 2), "y": round(4 + 92 * (1 - y), 2), "label": label,
                       "item": told["items"][at], "what": what.get(row, "")})  # fmt: skip
    sizes: dict[str, int] = {}
    for point in points:
        sizes[point["label"]] = sizes.get(point["label"], 0) + 1
    order = sorted((name for name in sizes if name), key=lambda name: (-sizes[name], name))[:COLOURS]
    colour = {name: f"c{number}" for number, name in enumerate(sorted(order))}
    for point in points:
        point["colour"] = colour.get(point["label"], "c")
    points.sort(key=lambda point: bool(point["what"]))  # those with findings lie on top
    return {
        "points": points,
        "legend": [(name, colour[name]) for name in sorted(order)],
        "others": any(point["colour"] == "c" for point in points),
        "stamps": _stamps(points, images),
        "method": told["method"],
        "shown": told.get("shown"),
        "all": len(told["rows"]),
    }


def _drawn(n: Mapping[str, Any]) -> NDArray[np.int64]:
    """Which points of the map are drawn: those with findings, and others in even steps."""
    told, what = n["map"], _said_of(n)
    named = [at for at, row in enumerate(told["rows"]) if row in what][: POINTS // 2]
    rest = np.setdiff1d(np.arange(len(told["rows"])), named)
    room = POINTS - len(named)
    some = rest if len(rest) <= room else rest[np.linspace(0, len(rest) - 1, room).astype(np.int64)]
    return np.sort(np.concatenate([np.asarray(named, np.int64), some]))


def _said_of(n: Mapping[str, Any]) -> dict[int, str]:
    """Row -> what the deep look says of it."""
    said: dict[int, str] = {}
    for finding in n.get("findings") or ():
        if finding["kind"] == "label_errors":
            for one in finding["items"]:
                if one["action"] != "keep" or (one["score"] or 0) >= 0.5:
                    said[one["row"]] = f"looks like {one['to']}" if one["to"] else "label does not fit"
        elif finding["kind"] == "outliers":
            for one in finding["items"]:
                said.setdefault(one["row"], "unlike all others")
    return said


def _stamps(points: Sequence[Mapping[str, Any]], images: Mapping[int, str]) -> list[Mapping[str, Any]]:
    """Points whose picture lies on the map, none on another."""
    chosen: list[Mapping[str, Any]] = []
    for point in points:
        if point["what"]:  # a ring, which lies above
            continue
        far = all(
            abs(point["x"] - o["x"]) > 100 * APART[0] or abs(point["y"] - o["y"]) > 100 * APART[1] for o in chosen
        )
        if point["row"] in images and far:
            chosen.append(point)
        if len(chosen) == STAMPS:
            break
    return chosen


def terminal(numbers: Mapping[str, Any], *written: str) -> RenderableType:
    """One table of findings with a proposed fix each."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    n = clean(numbers)
    data, many = n["data"], f"{wording.thing(n)}s"
    parts: list[Any] = [Text(wording.plain(note), style="dim") for note in data.get("notes") or ()]
    labels = f", {len(data['labels'])} labels" if data.get("labels") else ""
    parts.append(Text(f"{data['readable']:,} readable {many}{labels}", style="bold"))
    if n["findings"]:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_lines=False)
        for name in ("", "finding", "what to do", "proposed"):
            table.add_column(name, overflow="fold", no_wrap=not name)
        for f in n["findings"]:
            proposed = ", ".join(
                f"{ACTIONS[action]} {count:,}" for action, count in f["actions"].items() if action != "keep"
            )
            cells = (f["message"], f["fix"], proposed)
            table.add_row(
                Text(f["severity"], style=_COLOUR.get(f["severity"], "")), *(Text(wording.plain(c)) for c in cells)
            )
        parts.append(table)
    parts += [Text(wording.plain(sentence)) for sentence in sentences(n)]
    facts = n.get("facts") or {}
    if facts.get("left_out"):
        parts.append(Text(wording.plain(facts["left_out"]), style="yellow"))
    not_done = (facts.get("deep") or {}).get("not_done") or []
    parts += [Text(wording.plain(f"not looked at  {line}"), style="dim") for line in not_done]
    skipped = n.get("skipped") or []
    parts += [Text(wording.plain(f"skipped  {s['item']}: {s['reason']}"), style="yellow") for s in skipped[:20]]
    if len(skipped) > 20:
        parts.append(Text(f"... and {len(skipped) - 20:,} more (--out lists all)", style="yellow"))
    parts += [Text(f"written  {path}", style="cyan") for path in written]
    return Group(*parts)
