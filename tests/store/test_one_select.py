import pytest

from topwork.errors import BadSetting
from topwork.store.one_select import is_select, one_select


@pytest.mark.parametrize(
    "query",
    [
        "select path, label from photos",
        " SELECT 1 ; ",
        "(select a from b) union all (select c from d)",
        "with new as (select * from reviews where at > '2026-01-01') select text, label from new",
        "select replace(text, ';', ',') as text, insert(label, 1, 0, 'x') from reviews -- ; drop table reviews",
        "select text from reviews where label <> 'delete; me' and \"update\" = 1 and `into` > 2 /* into */",
        "select 'it''s; fine', $$ into; $$, tags[1] from reviews",
        "values (1, 'a')",
        "table reviews",
    ],
)
def test_one_select(query):
    assert one_select(query) == query.strip().removesuffix(";").strip()


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "empty"),
        (" ; ", "empty"),
        ("drop table photos", "begins with DROP"),
        ("update photos set label = 1", "begins with UPDATE"),
        ("-- select\ndelete from photos", "begins with DELETE"),
        ("select 1; select 2", "several statements"),
        ("select '\\'; drop table photos; --'", "several statements"),  # a string in MySQL, two statements elsewhere
        ("with gone as (delete from photos returning *) select * from gone", "holds DELETE"),
        ("select * into copy from photos", "holds INTO"),
        ("select 1 /*! into outfile '/tmp/x' */", "is executed"),
        ("select 1 /*M! into outfile '/tmp/x' */", "is executed"),
        ("select * from photos for update", "holds UPDATE"),
        ("explain select 1", "begins with EXPLAIN"),
    ],
)
def test_what_is_none(query, why):
    with pytest.raises(BadSetting, match=why):
        one_select(query)


def test_what_begins_like_one():
    assert is_select("select 1")
    assert is_select(" (SELECT 1) union (select 2)")
    assert not is_select("selected/")
    assert not is_select("photos/test")
