import datetime
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from topwork import sources
from topwork.errors import BadSetting


def read(path, times, **options):
    rows = "\n".join(f"a text of number {i} is here,{'ab'[i % 2]},{time}" for i, time in enumerate(times))
    path.write_text(f"text,label,date\n{rows}\n")
    return sources.read(path, **options)


@pytest.mark.parametrize(
    ("times", "first", "said"),
    [
        (["2024-05-01", "2024-05-02 10:30", "2024-05-03T10:30:00Z"], datetime.datetime(2024, 5, 1), None),
        (["2024-05-01T02:00:00+02:00"] * 3, datetime.datetime(2024, 5, 1), None),
        (["31.12.2024", "01.02.2024 12:30"], datetime.datetime(2024, 12, 31), None),
        (["01/02/2024", "31/12/2024"], datetime.datetime(2024, 2, 1), "day first"),
        (["01/02/2024", "12/31/2024"], datetime.datetime(2024, 1, 2), "month first"),
        (["01/02/2024", "03/04/2024"], datetime.datetime(2024, 2, 1), "nothing says that it is not the other way"),
        (["2021", "2020", "2022"], 2021.0, None),
        (["1700000000.5"] * 2, 1700000000.5, None),
    ],
)
def test_times_are_read(tmp_path, times, first, said):
    data = read(tmp_path / "t.csv", times)
    assert data.table["time"][0].as_py() == first
    assert data.table["time"].null_count == 0
    assert "time column 'date': its name" in data.notes
    assert said is None or any(said in note for note in data.notes)


def test_what_is_no_time_is_empty_and_said(tmp_path):
    data = read(tmp_path / "t.csv", ["2024-05-01"] * 30 + ["soon", ""])
    assert data.table["time"].null_count == 2
    assert "1 times cannot be read, e.g. 'soon': left empty" in data.notes
    assert "time" not in read(tmp_path / "u.csv", ["soon", "later", "never"]).columns


def test_columns_that_are_named(tmp_path):
    rows = [
        {"path": f"{i}.txt", "text": f"a text of number {i}", "label": "ab"[i % 2], "when": i, "shop": "XY"[i % 2]}
        for i in range(9)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = sources.read(tmp_path / "t.jsonl", time_column="when", domain_column="shop", item_column="text")
    assert data.table["time"].to_pylist() == [float(i) for i in range(9)]
    assert data.table["domain"].to_pylist()[:2] == ["X", "Y"]
    assert data.table.schema.field("domain").type == pa.string()
    with pytest.raises(BadSetting, match="has no column 'who'"):
        sources.read(tmp_path / "t.jsonl", domain_column="who")


def test_timestamps_of_parquet_and_several_tables(tmp_path):
    days = [datetime.datetime(2024, 1, i + 1, tzinfo=datetime.UTC) for i in range(6)]
    for name in ("train", "test"):
        table = pa.table(
            {"text": [f"{name} text of number {i}" for i in range(6)], "label": list("ababab"), "timestamp": days}
        )
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    data = sources.read(tmp_path)
    assert len(data) == 12
    assert data.table["time"].to_pylist() == [day.replace(tzinfo=None) for day in days] * 2
