"""Words that mattered: the probability of a label, and what is left of it when one word, or one value, is missing.

    effect of word w = p(label | text) - p(label | text without w)        of a row: with the value as a missing one

Units are runs of letters between white space, and single characters where a script writes no spaces (Chinese,
Japanese, Thai ...). Only the first UNITS of a text are left out in turn. A small effect does not say that a word means
nothing: where others say the same, each of them can be spared. Zeiler and Fergus, 2014 (occlusion); Li, Monroe and
Jurafsky, Understanding Neural Networks through Representation Erasure, 2016.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from topwork.modalities.rows import parsed, shown, written
from topwork.modalities.text import PAIR

UNITS = 60  # words of a text that are left out in turn
LETTERS = 700  # of a text that are shown, at most
SHOWN = 12  # examples of each list
FAINT = 0.2  # where no word has a stronger effect, none is marked as the strongest
SECONDS = 10.0  # for all of them; what comes later is shown without effects

_ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_UNIT = re.compile(f"[{_ALONE}]|[^\\s{_ALONE}]+")  # \s holds PAIR
_GAP = re.compile(f"[^\\S{PAIR}]*")

Ask = Callable[[Iterable[str]], Iterable[Any]]
"""Texts -> probabilities (C,) of each, in order; what is no sequence of numbers is an unreadable one."""


def units(text: str, most: int = UNITS) -> list[tuple[int, int]]:
    """Where each of the first words begins and ends."""
    found = []
    for match in _UNIT.finditer(text):
        if len(found) == most:
            break
        found.append(match.span())
    return found


def without(text: str, start: int, end: int) -> str:
    """The text without one of its words and the white space after it."""
    gap = _GAP.match(text, end)
    return text[:start] + text[gap.end() if gap else end :]


Apart = tuple[str, list[tuple[int, int]], Iterator[str]]
"""What is shown of an item, where its parts stand in that, and the item without each of them in turn."""


def words(text: str) -> Apart:
    """A text word by word; a word that the end of what is shown would cut is none."""
    spans = units(text[:LETTERS])
    if len(text) > LETTERS and spans and spans[-1][1] == LETTERS:
        spans = spans[:-1]
    return text, spans, (without(text, start, end) for start, end in spans)


def cells(row: str) -> Apart:
    """A row value by value; a value that is left out is missing."""
    known = parsed(row)
    said, spans = "", []
    for name, cell in known.items():
        if len(spans) == UNITS:
            break
        said += ", " if said else ""
        one = shown(written({name: cell}))
        spans.append((len(said), len(said) + len(one)))
        said += one
    more = "…" if len(spans) < len(known) else ""
    return said + more, spans, (written({**known, name: None}) for name in [*known][: len(spans)])


def explain(
    entries: Sequence[dict[str, Any]],
    texts: Sequence[str],
    labels: Sequence[str],
    ask: Ask,
    seconds: float = SECONDS,
    scale: float | None = None,
    apart: Callable[[str], Apart] = words,
) -> list[dict[str, Any]]:
    """The entries of a gallery with what is shown of their texts or rows, all of them asked about in one go.

    words    [[letters, effect or null], ...]: the text from its beginning, up to LETTERS
    about    the label that the effects are for: what the entry says was predicted, where that is one label
    stated   p(about | text) of the model that is asked, which may have learnt from this very text
    scale    of a model of numbers: effects are in units of it, its typical error
    """
    deadline, late = time.monotonic() + seconds, False
    parts = [apart(text) for text in texts]
    stream = iter(
        ask(one for text, (_, own, less) in zip(texts, parts, strict=True) for one in _asked(text, own, less))
    )
    told = []
    for entry, (said, own, _) in zip(entries, parts, strict=True):
        answers: list[Any] = []
        while own and not late and len(answers) <= len(own):
            answers.append(next(stream))
            late = time.monotonic() >= deadline
        whole = len(answers) == len(own) + 1 and all(hasattr(answer, "argmax") for answer in answers)
        facts = _effects(answers, str(entry.get("predicted") or ""), labels, scale) if whole else {}
        told.append(entry | {"words": pieces(said, own, facts.pop("effects", [None] * len(own))), **facts})
    return told


def _asked(text: str, spans: Sequence[tuple[int, int]], less: Iterator[str]) -> Iterator[str]:
    if spans:
        yield text
        yield from less


def _effects(answers: Sequence[Any], said: str, labels: Sequence[str], scale: float | None) -> dict[str, Any]:
    whole = answers[0]  # (C,)
    c = labels.index(said) if said in labels else int(whole.argmax())
    effects = [round(float(whole[c] - less[c]) / (scale or 1), 4) for less in answers[1:]]
    told = {"effects": effects, "stated": float(whole[c]), "about": labels[c]}
    return told if scale is None else {**told, "scale": scale}


def pieces(
    text: str, spans: Sequence[tuple[int, int]], effects: Sequence[float | None]
) -> list[tuple[str, float | None]]:
    """Words with their effects and what lies between them without, up to LETTERS; an ellipsis where more follows."""
    found: list[tuple[str, float | None]] = []
    at = 0
    for (start, end), effect in zip(spans, effects, strict=True):
        if start > at:
            found.append((text[at:start], None))
        found.append((text[start:end], effect))
        at = end
    rest = text[at:LETTERS] + ("…" if len(text) > LETTERS else "")
    return [*found, (rest, None)] if rest else found


def level(effect: float | None, most: float, levels: int = 4) -> int:
    """How strongly a word is marked: -levels (against the label) .. levels (for it), 0: next to nothing."""
    if effect is None:
        return 0
    return round(levels * effect / max(most, FAINT))
