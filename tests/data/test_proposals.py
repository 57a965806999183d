import numpy as np
import pyarrow as pa
import pytest

from topwork.data.proposals import COPIES, DEEP, KINDS, USUAL, drops, kinds_of, propose, strongest
from topwork.errors import UnknownName
from topwork.types import Dataset, Finding


def made(labels, twins, splits=None, contents=None, names=("ant", "bee", "cat")):
    N = len(labels)
    contents = contents or range(N)
    table = pa.table(
        {
            "item": [f"{row}.png" for row in range(N)],
            "target": pa.array(labels, pa.int32()),
            "split": pa.array(splits or [None] * N, pa.string()).dictionary_encode(),
            "content": pa.array([bytes([c] * 16) for c in contents], pa.binary(16)),
            "twin": pa.array(twins, pa.int32()),
        }
    )
    return Dataset(table, "/", names)


def dropped(kind, dataset, rows, **more):
    return set(drops(Finding(kind, "note", "", rows=tuple(rows), **more), dataset))


def test_one_copy_stays_and_it_is_the_one_that_measures():
    data = made([0] * 6, [0, 0, 0, 1, 1, 2], ["train", "val", "test", "train", "train", "test"])
    assert dropped("near_duplicates", data, range(5)) == {0, 1, 4}
    assert dropped("leakage", data, [0, 1, 2]) == {0, 1}


def test_exact_copies_are_of_equal_bytes():
    data = made([0] * 4, [0, 0, 0, 0], contents=[7, 7, 9, 9])
    assert dropped("exact_duplicates", data, range(4)) == {1, 3}
    assert dropped("mirrored_duplicates", data, range(4)) == {1, 2, 3}


def test_a_majority_decides_and_is_not_lost_with_its_copies():
    data = made([1, 0, 0, 1, 2], [0, 0, 0, 1, 1])
    conflicts, copies = (
        Finding(kind, "warning", "", rows=tuple(range(5))) for kind in ("conflicting_labels", "near_duplicates")
    )
    assert set(drops(conflicts, data)) == {0, 3, 4}
    both = strongest([*propose(conflicts, data), *propose(copies, data)])
    assert [row for row in range(5) if both[row].action != "drop"] == [1]


def test_models_have_no_say_in_what_measures():
    data = made([0, 0, 1, 1], range(4), ["train", "test", "val", None])
    finding = Finding("label_errors", "warning", "", rows=(0, 1, 2, 3), suggest=("bee", "bee", "ant", ""),
                      scores=(0.99, 0.99, 0.99, 0.95))  # fmt: skip
    said = {one.row: (one.action, one.to) for one in propose(finding, data)}
    assert said == {0: ("relabel", "bee"), 1: ("keep", "bee"), 2: ("keep", "ant"), 3: ("drop", "")}
    assert dropped("outliers", data, range(4)) == {0, 3}
    unsure = Finding("label_errors", "note", "", rows=(0,), suggest=("bee",), scores=(0.6,))
    assert propose(unsure, data)[0].action == "keep"
    assert not drops(unsure, data)


def test_labels_are_changed_only_where_there_is_evidence_unless_who_asks_has_decided():
    data = made([0, 0, 1, 1], range(4))
    finding = Finding("label_errors", "warning", "", rows=(0, 1, 2), suggest=("bee", "bee", "ant"),
                      scores=(0.99, 0.97, 0.5), proven=(True, False, False))  # fmt: skip
    assert [(one.row, one.action, one.to) for one in propose(finding, data)] == [
        (0, "relabel", "bee"), (1, "keep", "bee"), (2, "keep", "ant"),
    ]  # fmt: skip
    assert dropped("label_errors", data, (0, 1, 2), suggest=finding.suggest, scores=finding.scores,
                   proven=finding.proven) == {0, 1}  # fmt: skip


def test_spellings_go_to_the_most_frequent_one():
    data = made([0, 1, 1, 2], range(4), names=("Cat", "cat", "dog"))
    (one,) = propose(Finding("label_names", "warning", ""), data)
    assert (one.row, one.action, one.to) == (0, "relabel", "cat")


def test_other_kinds_are_looked_at_unless_their_drop_is_asked_for():
    data = made([0, 1, 2], range(3))
    blurred = Finding("blurred", "note", "", rows=(1,), scores=(0.1,))
    assert [one.action for one in propose(blurred, data)] == ["keep"]
    assert dropped("blurred", data, [1]) == {1}
    assert dropped("blank", data, [2]) == {2}


def test_names_of_kinds():
    assert kinds_of(["duplicates", "blank", "blank"]) == (*COPIES, "blank")
    assert kinds_of(["leaks"]) == ("leakage",)
    assert not {*USUAL} & {*DEEP}
    assert {*USUAL, *DEEP} <= {*KINDS}
    with pytest.raises(UnknownName, match="Did you mean 'outliers'"):
        kinds_of(["outlier"])


def test_every_kind_that_an_inspection_reports_rows_of_can_be_dropped():
    """Kinds are words in the code of the rooms that look; none may be forgotten here."""
    import re
    from pathlib import Path

    import topwork.data

    known = {*KINDS, "label_names", "leaking_groups", "shift"}
    without_rows = {"unreadable", "empty_class", "tiny_class", "imbalance", "missing_in_split", "languages"}
    without_rows |= {"recurring", "tells_all"}
    words = set()
    for file in Path(topwork.data.__path__[0]).glob("*.py"):
        words |= set(
            re.findall(r"""(?:_finding\(\s*dataset,|found\(|Finding\(|finding\()\s*"(\w+)",""", file.read_text())
        )
    assert len(words) > 20
    assert words <= known | without_rows | {"languages"}, words - known - without_rows
    assert np.isin(sorted(known - {"leaking_groups", "shift", "label_names"}), KINDS).all()
