"""Reading from and writing to real servers, and SQLite always."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image
from typer.testing import CliRunner

from topwork import plugins, sources, sweeping, verbs, wishes, writing_back
from topwork.cli import app
from topwork.errors import BadData, BadSetting
from topwork.sources import sql
from topwork.store.database import Database
from topwork.store.sql_table import Column, SqlTable
from topwork.types import Skipped

from .databases import PASSWORD, mariadb, postgresql
from .encoders import texts

KINDS = ("sqlite", "postgresql", "mariadb")


@pytest.fixture(scope="module")
def servers():
    """Starts each server when the first test asks for it."""
    with contextlib.ExitStack() as until:
        known = {}

        def of(kind):
            if kind not in known:
                known[kind] = until.enter_context({"postgresql": postgresql, "mariadb": mariadb}[kind]())
            return known[kind]

        yield of


@pytest.fixture(params=KINDS)
def uri(request, servers, tmp_path):
    """The address of a database with a table of reviews and none of predictions."""
    if request.param == "sqlite":
        uri = f"sqlite:///{tmp_path / 'shop.db'}"
        with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as file:
            file.execute("pragma journal_mode=wal")  # others may write while we read, as in a server
    else:
        uri = servers(request.param)
    run(uri, "drop table if exists reviews", "drop table if exists predictions", "drop table if exists photos")
    bodies, targets = texts(per_class=40)
    run(uri, "create table reviews (id integer primary key, body varchar(400), label varchar(20), stars decimal(4, 1))")
    rows = [
        f"({i}, '{body}', '{('garden', 'sea')[t]}', {t})"
        for i, (body, t) in enumerate(zip(bodies, targets, strict=True))
    ]
    run(uri, f"insert into reviews values {', '.join(rows)}")
    return uri


def run(uri, *statements):
    with Database(uri).writing() as connection:
        connection = connection.execution_options(no_parameters=True)
        for statement in statements:
            connection.exec_driver_sql(statement)


def rows_of(uri, query):
    with Database(uri).snapshot() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query).fetchall()]


QUERY = "select body, label from reviews order by id"


def test_rows_are_read(uri):
    run(uri, "insert into reviews values (100, null, 'sea', 0), (101, 'a wave of 100% reef', null, 0)")
    data = sources.read(uri, query="select body, label from reviews where id > 3 or body like '%wave%' order by id;")
    assert data.labels == ("garden", "sea")
    assert data.modality == "text"
    assert data.notes == ("text column 'body': its name", "label column 'label': its name")
    assert [s.reason for s in data.skipped] == ["no text", "no label"]
    last = int(data.table["item"].to_pylist()[-1].removeprefix("query row "))
    assert [s.item for s in data.skipped] == [f"query row {last + 1}", f"query row {last + 2}"]
    assert PASSWORD not in repr(data) + str(data.history) + str(data.notes)
    numbers = sources.read(uri, query="select body, stars from reviews where id < 100", label_column="stars")
    assert numbers.labels == ("0", "1")


def test_lists_and_other_kinds_of_cells(servers):
    uri = servers("postgresql")
    run(
        uri,
        "drop table if exists odd",
        "create table odd (body text, tags text[], at timestamptz, price numeric(6, 2))",
    )
    run(uri, *(f"insert into odd values ('a wave {i}', array['b', 'a{i % 2}'], now(), {i}.25)" for i in range(30)))
    data = sources.read(uri, query="select body, tags from odd")
    assert data.multilabel
    assert data.labels == ("a0", "a1", "b")
    numbers = sources.read(uri, query="select body, price from odd order by price")
    assert numbers.numeric
    assert numbers.targets()[:3].tolist() == [0.25, 1.25, 2.25]


def test_no_database(tmp_path):
    (tmp_path / "x.db").write_bytes(b"no database" * 100)
    with pytest.raises(BadData, match="file is not a database"):
        sources.read(f"sqlite:///{tmp_path / 'x.db'}", query="select a, b from c")


def test_a_sweep_says_no_secret(tmp_path):
    spec = {"data": f"postgresql://ann:{PASSWORD}@db", "query": "select body, label from reviews"}
    (job,) = sweeping.plan([spec], tmp_path)
    assert PASSWORD in " ".join(job.command)
    assert PASSWORD not in job.line + job.name + str(job.out)


def test_what_others_write_meanwhile_is_not_seen(uri):
    more = ", ".join(f"({i}, 'a gull and a tide', 'sea', 1)" for i in range(1000, 9000))
    run(uri, f"insert into reviews values {more}")
    with sql.opened(Database(uri), "select id, body from reviews") as rows:
        stream = rows.rows()
        first = [next(stream) for _ in range(10)]
        run(uri, "insert into reviews values (20000, 'late', 'sea', 1)", "update reviews set body = 'changed'")
        rest = list(stream)
    assert len(first) + len(rest) == 8080
    assert all(cells[1] not in ("late", "changed") for _, cells in rest)
    assert rows_of(uri, "select count(*) from reviews where body = 'changed'") == [(8081,)]


def test_nothing_can_be_written_in_a_snapshot(uri):
    with pytest.raises(BadData, match=r"(?i)read.?only"), Database(uri).snapshot() as connection:
        connection.exec_driver_sql("delete from reviews")
    assert rows_of(uri, "select count(*) from reviews") == [(80,)]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("select body, label from nowhere", "nowhere"),
        ("select bodi from reviews", "bodi"),
        ("select body, body from reviews", "two columns called 'body'"),
        ("select body, label from reviews where id < 0", "the query gives no rows. Columns: body, label"),
        ("select id, stars from reviews", "no column holds image files, texts or numbers"),
        ("select body from reviews; drop table reviews", "several statements"),
        ("selec body", "begins with SELEC"),
    ],
)
def test_a_wrong_query_is_one_line(uri, query, why):
    with pytest.raises((BadData, BadSetting), match=why) as caught:
        sources.read(uri, query=query)
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_images_in_the_database(uri, tmp_path, monkeypatch):
    blob = {"postgresql": "bytea", "mariadb": "mediumblob"}.get(Database(uri).kind, "blob")
    run(uri, f"create table photos (id integer primary key, picture {blob}, label varchar(20))")
    photos = sa.table("photos", sa.column("id"), sa.column("picture", sa.LargeBinary), sa.column("label"))
    kept = []
    for i in range(12):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((40, 40, 3), 10 * i, np.uint8)).save(path)
        kept.append({"id": i, "picture": path.read_bytes() if i < 11 else b"\x00\xff no image", "label": "ab"[i % 2]})
    with Database(uri).writing() as connection:
        connection.execute(sa.insert(photos), kept)
    monkeypatch.setattr(sql, "CHUNK_BYTES", 300)
    data = sources.read(uri, query="select picture, label from photos order by id")
    assert data.modality == "image" == sources.modality(uri, query="select picture, label from photos")
    assert "column 'picture' holds images: kept in the cache as files" in data.notes
    assert [Path(path).read_bytes() for path in data.paths()] == [row["picture"] for row in kept]
    assert data.root == "" or os.path.isabs(data.table["item"][0].as_py())
    before = {path: os.stat(path).st_mtime_ns for path in data.paths()}
    assert sources.read(uri, query="select picture, label from photos order by id").paths() == data.paths()
    assert {path: os.stat(path).st_mtime_ns for path in data.paths()} == before
    with sql.inputs(uri, "select id, picture from photos order by id", None, None, []) as asked:
        assert (asked.modality, asked.key, asked.kind) == ("image", "id", "integer")
        assert list(asked.pairs) == list(enumerate(data.paths()))
    found = verbs.inspect(data)
    assert next(s.reason for s in found.dataset.skipped).startswith("not an image")
    assert len(found.dataset) == 11


def test_paths_in_the_database(tmp_path):
    (tmp_path / "pics").mkdir()
    for i in range(6):
        (tmp_path / "pics" / f"{i}.jpg").write_bytes(b"x")
    uri = f"sqlite:///{tmp_path / 'x.db'}"
    run(uri, "create table photos (path text, label text)")
    rows = ", ".join(f"('pics/{i}.jpg', {i % 2})" for i in range(7))
    run(uri, f"insert into photos values {rows}")
    data = sources.read(uri)
    assert data.table["item"].to_pylist() == [f"pics/{i}.jpg" for i in range(6)]
    assert data.root == str(tmp_path)
    assert data.skipped == (Skipped("query row 7", "pics/6.jpg does not exist"),)
    run(uri, "create table others (a text)")
    with pytest.raises(BadSetting, match=r"needs a query, e.g. --query .* Its tables: others, photos"):
        sources.read(uri)


def test_test_data_are_a_second_query(tmp_path):
    uri = f"sqlite:///{tmp_path / 'x.db'}"
    run(
        uri,
        "create table reviews (body text, label text)",
        "insert into reviews values ('a rose', 'b'), ('a gull', 'a')",
    )
    data = wishes.read_test("select body, label from reviews where label = 'a'", uri, {"label_column": "label"})
    assert data.labels == ("a",)


def test_options_are_those_of_a_table():
    ours, tables = (set(plugins.find("sources", name).__dataclass_fields__) for name in ("sql", "table"))
    assert ours - tables == {"query"}
    assert not tables - ours
    with pytest.raises(BadSetting, match="query cannot be used with"):
        sources.read(os.path.dirname(__file__), query="select a, b from c")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of texts, fitted from a database."""
    folder = tmp_path_factory.mktemp("model")
    bodies, targets = texts(per_class=40)
    run(f"sqlite:///{folder}/x.db", "create table reviews (body text, label text)")
    values = ", ".join(f"('{body}', '{('garden', 'sea')[t]}')" for body, t in zip(bodies, targets, strict=True))
    run(f"sqlite:///{folder}/x.db", f"insert into reviews values {values}")
    return verbs.fit(f"sqlite:///{folder}/x.db", steps="majority,ngrams", out=folder / "m")


def write(model, uri, **more):
    asked = {"query": "select id, body from reviews order by id", "key": None, "item_column": None, **more}
    return writing_back.write_back(model, writing_back.judged(model, uri, **asked), uri, "predictions")


def test_answers_are_written_back(uri, model):
    run(uri, "insert into reviews values (100, null, 'sea', 0)")
    assert write(model, uri) == 80
    found = rows_of(uri, "select id, label, probability, model, model_hash, predicted_at from predictions order by id")
    bodies = [body for (body,) in rows_of(uri, "select body from reviews where id < 100 order by id")]
    said = model.predict(bodies)
    assert [row[0] for row in found] == list(range(80))
    assert [row[1] for row in found] == [one.label for one in said]
    assert np.allclose([row[2] for row in found], [one.probability for one in said], atol=1e-6)
    assert {row[3:5] for row in found} == {("m", model.manifest["files"]["model.onnx"]["sha256"])}
    assert len({row[5] for row in found}) == 1
    assert write(model, uri) == 80  # appended
    assert rows_of(uri, "select count(*) from predictions") == [(160,)]


def test_a_table_that_does_not_fit_is_refused_before_work(uri, model):
    run(
        uri,
        "create table predictions (id varchar(10), label varchar(20), probability varchar(20), must integer not null)",
    )
    with pytest.raises(BadSetting, match="does not fit") as caught:
        write(model, uri)
    said = str(caught.value)
    assert "it has no column model, model_hash, predicted_at" in said
    assert "id is VARCHAR(10), expected integer" in said
    assert "must must have a value" in said
    assert PASSWORD not in said
    assert rows_of(uri, "select count(*) from predictions") == [(0,)]


KILLED = """
    import os, signal
    from topwork.store.database import Database
    from topwork.store.sql_table import Column, SqlTable

    def rows():
        for i in range(5000):
            if i == 3500:
                print("killed", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            yield i, "x"

    table = SqlTable(Database(os.environ["PLACE"]), "predictions", (Column("id", "integer"), Column("label", "text")))
    table.check()
    table.append(rows())
"""


@pytest.mark.parametrize("there", [False, True])
def test_a_killed_write_leaves_nothing(uri, there):
    if there:
        run(
            uri, "create table predictions (id bigint, label varchar(20))", "insert into predictions values (-1, 'old')"
        )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED)],
        env={**os.environ, "PLACE": uri},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "killed\n"
    with Database(uri).snapshot() as connection:
        left = sa.inspect(connection).has_table("predictions")
    assert there <= left
    if Database(uri).kind != "mariadb":
        assert left == there
    if left:
        assert rows_of(uri, "select * from predictions") == ([(-1, "old")] if there else [])


def test_an_error_while_writing_leaves_nothing(uri):
    columns = (Column("id", "integer"), Column("label", "text"))
    table = SqlTable(Database(uri), "predictions", columns)
    with pytest.raises((BadData, OverflowError)):
        table.append((i if i < 2000 else 1 << 80, "x") for i in range(3000))
    with Database(uri).snapshot() as connection:
        assert not sa.inspect(connection).has_table("predictions")


def test_keys(uri, model):
    run(uri, "insert into reviews values (200, 'a reef', 'sea', 1)")
    query = "select label as id, body from reviews where id = 200"
    assert write(model, uri, query=query) == 1
    assert rows_of(uri, "select id from predictions") == [("sea",)]
    with pytest.raises(BadSetting, match=r"no column of the query names its rows. Name one with --key"):
        write(model, uri, query="select body from reviews")
    with pytest.raises(BadSetting, match="gives no column 'nr'"):
        write(model, uri, key="nr")
    with pytest.raises(BadSetting, match=r"id is .*, expected integer"):
        write(model, uri)


@pytest.mark.slow
def test_from_the_command_line(servers, tmp_path, monkeypatch):
    """Fit, predict, write back; the password is in the environment, in the address, and nowhere else."""
    uri = servers("postgresql")
    run(uri, "drop table if exists reviews", "drop table if exists predictions")
    bodies, targets = texts(per_class=30)
    run(uri, "create table reviews (id integer, body text, label text)")
    values = [f"({i}, '{b}', '{'ab'[t]}')" for i, (b, t) in enumerate(zip(bodies, targets, strict=True))]
    run(uri, f"insert into reviews values {', '.join(values)}")
    bare = uri.replace(f":{PASSWORD}", "")
    monkeypatch.chdir(tmp_path)

    def clean(said):
        assert PASSWORD not in said
        assert "ann@" not in said
        return said

    def topwork(*words, secret):
        done = subprocess.run(
            [sys.executable, "-m", "topwork", *words], capture_output=True, text=True,
            env={**os.environ, "TOPWORK_SQL_PASSWORD": secret},
        )  # fmt: skip
        return done.returncode, clean(done.stdout), clean(done.stderr)

    code, _, said = topwork("fit", uri, "--query", QUERY, "--steps", "majority,ngrams", "--out", "m", secret="")
    assert code == 0, said
    for path in (tmp_path / "m").iterdir():
        clean(path.read_bytes().decode(errors="replace"))
    report = (tmp_path / "m" / "report.json").read_text()
    assert f"{uri.replace(f'ann:{PASSWORD}', '***')}: {QUERY}" in report
    assert f"topwork fit {uri.replace(f'ann:{PASSWORD}', '***')} --query" in report
    code, shown, said = topwork("evaluate", "m", bare, "--query", QUERY, secret="wrong")
    assert (code, shown) == (2, "")
    assert said.startswith("topwork: postgresql://***@127.0.0.1")
    assert "password authentication failed" in said
    assert said.count("\n") == 1

    monkeypatch.setenv("TOPWORK_SQL_PASSWORD", PASSWORD)
    asked = ("--query", "select id, body from reviews where id < 10 order by id")

    def predict(*words):
        done = CliRunner().invoke(app, ["predict", "m", *words])
        return clean(done.stdout), clean(str(done.exception or ""))

    shown, _ = predict(bare, *asked, "--csv")
    assert [line.split(",")[0] for line in shown.splitlines()] == ["input", *map(str, range(10))]
    assert predict(bare, *asked, "--to", "sql", "--table", "predictions")[0] == "predictions: 10 rows written\n"
    assert rows_of(uri, "select count(*) from predictions") == [(10,)]
    assert predict(bare, *asked, "--to", "sqlite:///o.db", "--table", "p")[0] == "p: 10 rows written\n"
    assert predict("a reef", "--to", "sqlite:///o.db", "--table", "q")[0] == "q: 1 rows written\n"
    assert rows_of("sqlite:///o.db", "select input from q") == [("a reef",)]
    for words, why in (
        ((uri.replace("@", "@@"), *asked), "not the address of a database"),
        ((bare, "--query", "select nope", "--to", "sql", "--table", "p"), "nope"),
        ((bare, *asked, "--to", "sql"), "needs the name of a table"),
        ((bare, *asked, "--to", "elsewhere", "--table", "p"), "--to elsewhere: expected sql"),
        ((bare, *asked, "--to", "sql", "--table", "p; drop"), "is not the name of a table"),
        ((bare, "more.txt", *asked), "asked alone"),
        (("a reef", *asked), "are for rows of a database"),
        ((bare, *asked, "--table", "p"), "names where --to writes"),
    ):
        assert why in predict(*words)[1], words
