"""Which column of a table is what: guessed from its name and a sample of its rows, and every guess is a note."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from topwork.sources import split_of
from topwork.sources._labels import as_number, parsed
from topwork.sources._rows import is_image

MOST_GRADES = 20  # so many different numbers may be grades, which are classes
NUMBERS = 0.95  # share of the cells that must be numbers

Sample = Sequence[Sequence[Any]]

ITEM_NAMES = ("item", "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img")
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target", "tags", "species", "breed", "y")
TEXT_LABEL_NAMES = (
    *LABEL_NAMES, "sentiment", "intent", "polarity", "emotion", "topic", "gold_label", "is_duplicate", "stance",
    "toxic", "spam", "rating", "stars", "score", "coarse", "标签", "类别", "分类", "情感", "类型",
)  # fmt: skip
SPLIT_NAMES = ("split", "set", "subset", "partition", "data set", "dataset", "phase", "fold")
GROUP_NAMES = ("group", "group_id")
TEXT_NAMES = (
    "text", "sentence", "review", "content", "comment", "document", "utterance", "tweet", "message", "body", "question",
    "query", "review_body", "review_text", "comment_text", "abstract", "description", "headline", "title", "phrase",
    "文本", "内容", "评论", "正文", "句子", "评价", "标题", "text_a",
)  # fmt: skip
PAIRS = (
    ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"), ("premise", "hypothesis"),
    ("text_a", "text_b"), ("text1", "text2"), ("text_1", "text_2"), ("question1", "question2"), ("question", "answer"),
    ("question", "sentence"), ("question", "passage"), ("question", "context"), ("query", "passage"),
    ("query", "document"), ("claim", "evidence"), ("句子1", "句子2"), ("问题", "答案"),
)  # fmt: skip
_WIDE = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")  # scripts without blanks between words
_PLACE = re.compile(r"\S*[/\\]\S*|\S+\.\w{1,5}|\w+://\S+")  # a path, a file, an address


def guess_text(columns: Sequence[str], sample: Sample, taken: Collection[Any], notes: list[str]) -> tuple[int, ...]:
    """The column of texts, or the two of a pair; () where none is evident."""
    free = {i: _likeness(sample, i) for i in range(len(columns)) if i not in taken}
    names = {columns[i].strip().casefold(): i for i, like in free.items() if like is not None}
    for one, other in PAIRS:
        if one in names and other in names:
            notes.append(f"text columns '{columns[names[one]]}' and '{columns[names[other]]}': their names, a pair")
            return names[one], names[other]
    texts = {i: like for i, like in free.items() if like}
    by_name = [names[name] for name in TEXT_NAMES if name in names]
    wordy = [i for i in by_name if i in texts] or (by_name if not texts else [])
    if wordy:
        notes.append(f"text column '{columns[wordy[0]]}': its name")
        return (wordy[0],)
    if not texts and len(columns) == 1 and free.get(0) is not None:
        return (0,)
    if not texts:
        return ()
    best = max(texts, key=lambda i: (texts[i], -i))
    why = "the only one with text" if len(texts) == 1 else f"its {texts[best]:.0f} characters on average are the most"
    notes.append(f"text column '{columns[best]}': {why}")
    return (best,)


def guess_split(columns: Sequence[str], sample: Sample, taken: Collection[Any], notes: list[str]) -> int | None:
    """The column whose values are train, val or test."""
    for i, column in enumerate(columns):
        words = {str(row[i]).strip() for row in sample if row[i] not in (None, "")}
        if i not in taken and column.lower() in SPLIT_NAMES and words and all(map(split_of, words)):
            notes.append(f"split column '{column}': its values are {', '.join(sorted(words))}")
            return i
    return None


def guess_group(columns: Sequence[str], taken: Collection[Any], notes: list[str]) -> int | None:
    """The column that says what belongs together."""
    group = next((i for i, c in enumerate(columns) if i not in taken and c.lower() in GROUP_NAMES), None)
    if group is not None:
        notes.append(f"group column '{columns[group]}': its name")
    return group


def guess_label(
    columns: Sequence[str],
    sample: Sample,
    taken: Collection[Any],
    notes: list[str],
    names: Sequence[str] = LABEL_NAMES,
) -> int | None:
    """The column of labels, by its name or because its values recur."""
    free = [i for i in range(len(columns)) if i not in taken]
    by_name = [i for word in names for i in free if columns[i].lower() == word]
    if by_name:
        notes.append(f"label column '{columns[by_name[0]]}': its name")
        return by_name[0]
    distinct = {i: len({str(row[i]) for row in sample}) for i in free}
    few = [i for i in free if len(free) == 1 or 2 <= distinct[i] <= len(sample) / 2]
    if not few:
        notes.append("no label column found: items without labels")
        return None
    best = min(few, key=lambda i: distinct[i])
    why = "the only other column" if len(free) == 1 else f"only {distinct[best]} different values in {len(sample)} rows"
    notes.append(f"label column '{columns[best]}': {why}")
    return best


def guess_kind(
    column: str | None, values: Sequence[Any], separator: str | None, numeric: bool | None, notes: list[str]
) -> tuple[bool, str, bool]:
    """Whether an item may have several labels, what stands between them in a cell, and whether they are numbers."""
    if column is not None and (guess_numeric(column, values, notes) if numeric is None else numeric):
        return False, "", True
    separator = guess_separator(values, notes) if separator is None else separator
    several = bool(separator) or any(isinstance(parsed(value), list) for value in values)
    if several and not separator:
        notes.append(f"column '{column}' holds lists: multi-label")
    return several, separator, False


def guess_numeric(column: str, values: Sequence[Any], notes: list[str]) -> bool:
    """Whether the labels are numbers that measure something: many different ones, and not the numbers of classes."""
    numbers = [as_number(value) for value in values if value not in (None, "")]
    known = {number for number in numbers if number is not None}
    if len(known) <= MOST_GRADES or len(numbers) - numbers.count(None) < NUMBERS * len(numbers):
        return False
    whole = all(number.is_integer() for number in known)
    if whole and min(known) in (0, 1) and max(known) <= len(known):  # classes 0 ... C - 1
        fewest = min(Counter(number for number in numbers if number is not None).values())
        if len(numbers) >= 5 * len(known) or fewest > 1:
            return False
    notes.append(
        f"column '{column}' holds numbers, {len(known):,} different ones in {len(numbers):,} rows: regression "
        "(--task says otherwise)"
    )
    return True


def guess_separator(values: Sequence[Any], notes: list[str]) -> str:
    """| or ; when the pieces around it recur in other cells."""
    cells = {value.strip() for value in values if isinstance(value, str) and not value.startswith("[")}
    for separator in ("|", ";"):
        several = [cell for cell in cells if separator in cell]
        used = Counter(part.strip() for cell in cells for part in cell.split(separator))
        recurring = sum(any(used[part.strip()] > 1 for part in cell.split(separator)) for cell in several)
        if several and recurring >= len(several) / 2 and len(several) > 1:
            notes.append(f"labels are separated by '{separator}', e.g. '{min(several)}': multi-label")
            return separator
    return ""


def _likeness(sample: Sample, at: int) -> float | None:
    """Mean length of a column that reads like text; 0 where it may be (single words); None where it is none."""
    cells = [row[at] for row in sample if row[at] not in (None, "")]
    texts = [cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]
    if not texts or len(texts) < 0.9 * len(cells) or len(texts) < 0.5 * len(sample):
        return None
    if sum(bool(_PLACE.fullmatch(text)) or is_image(text) for text in texts) > len(texts) / 2:
        return None
    if sum(not re.search(r"[^\W\d_]", text) for text in texts) > len(texts) / 2:  # numbers, dates
        return None
    wordy = sum(len(text.split()) > 1 or len(_WIDE.findall(text)) > 3 for text in texts)
    recurring = len(texts) > 20 and len(set(texts)) < len(texts) / 5
    if wordy < len(texts) / 2 or recurring:
        return 0.0
    return sum(map(len, texts)) / len(texts)
