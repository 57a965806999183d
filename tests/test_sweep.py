"""A list of fits over worker processes: checked at once, run, taken up again, told in one table."""

import dataclasses
import inspect
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import topwork as tw
from topwork import sweeping, verbs, wishes
from topwork.cli.sweep import table
from topwork.errors import BadData, BadSetting, StoreError
from topwork.sweeping import Job
from topwork.types import Watch


@pytest.fixture
def squares(tmp_path):
    folder = tmp_path / "squares"
    draw = np.random.default_rng(0)
    for label, shade in (("dark", 60), ("light", 190)):
        (folder / label).mkdir(parents=True)
        for i in range(8):
            picture = (shade + draw.normal(0, 20, (24, 24, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / label / f"{i}.png")
    return folder


class Said(Job):
    """A job that runs a line of Python instead of a fit."""

    @property
    def command(self):
        return [sys.executable, "-S", "-c", self.words[0], str(self.out)]


GOOD = (
    "import json, os, sys; os.makedirs(sys.argv[1]); "
    "open(sys.argv[1] + '/model.json', 'w').write('{}'); "
    "metrics = {'accuracy': {'value': 0.9, 'low': 0.8, 'high': 0.95, 'n': 10}}; "
    "json.dump({'multilabel': False, 'metrics': metrics, 'steps': [{'name': 'probe', 'kept': True}]}, "
    "open(sys.argv[1] + '/report.json', 'w'))"
)
BAD = "import sys; print('noise', file=sys.stderr); sys.exit('topwork: no such thing. Take another')"


def test_fits_run_and_what_is_done_is_left_out(squares, tmp_path, monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "cache"))
    specs = [
        {"data": str(squares), "steps": ["majority"], "name": "a"},
        {"data": str(squares), "steps": "majority,nonsense", "name": "b"},
    ]
    (tmp_path / "specs.jsonl").write_text("\n".join(map(json.dumps, specs)) + "\n\n")
    heard = []
    rows = tw.sweep(tmp_path / "specs.jsonl", out=tmp_path / "out", watch=Watch(say=heard.append))
    good, bad = rows
    assert (good["name"], good["state"], good["step"]) == ("a", "done", "majority")
    assert good["metric"]["low"] <= good["metric"]["value"] <= good["metric"]["high"]
    assert tw.load(good["folder"]).labels == ("dark", "light")
    assert bad["state"] == "failed"
    assert bad["reason"].startswith("No 'nonsense' in steps")
    before = (tmp_path / "out/a/model.onnx").stat().st_mtime_ns
    again = tw.sweep(specs[:1], out=tmp_path / "out")
    assert again == [{**good, "state": "known", "seconds": pytest.approx(good["seconds"], abs=0.01)}]
    assert (tmp_path / "out/a/model.onnx").stat().st_mtime_ns == before


def test_rows_come_in_order_and_other_options_are_run_again(tmp_path):
    jobs = [Said("slow", ("import time; time.sleep(0.4); " + GOOD,), tmp_path / "slow")]
    jobs += [Said("bad", (BAD,), tmp_path / "bad"), Said("quick", (GOOD,), tmp_path / "quick")]
    rows = sweeping.run(jobs, tmp_path, 3, Watch())
    assert [row["name"] for row in rows] == ["slow", "bad", "quick"]
    assert [row["state"] for row in rows] == ["done", "failed", "done"]
    assert rows[1]["reason"] == "no such thing. Take another"
    lines = [json.loads(line)["name"] for line in (tmp_path / sweeping.LOG).read_text().splitlines()]
    assert lines.index("slow") > lines.index("quick")
    changed = [jobs[0], Said("quick", (BAD + "  # another",), tmp_path / "quick")]
    states = [row["state"] for row in sweeping.run(changed, tmp_path, 2, Watch())]
    assert states == ["known", "failed"]
    with (tmp_path / sweeping.LOG).open("a") as file:
        file.write('{"name": "cut o')
    assert sweeping.run(jobs[:1], tmp_path, 1, Watch())[0]["state"] == "known"


def test_no_more_than_the_workers_at_a_time(tmp_path):
    code = "import time; a = time.time(); time.sleep(0.2); " + GOOD.replace("'{}'", "str([a, time.time()])")
    jobs = [Said(str(i), (code,), tmp_path / str(i)) for i in range(4)]
    sweeping.run(jobs, tmp_path, 2, Watch())
    spans = [json.loads((job.out / "model.json").read_text()) for job in jobs]
    assert max(sum(a <= begin < b for a, b in spans) for begin, _ in spans) == 2


def test_stopping_the_sweep_stops_its_fits(tmp_path):
    waits = "import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(130)); "
    waits += "open(sys.argv[1], 'w').close(); time.sleep(60)"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\nfrom topwork import sweeping\nfrom topwork.types import Watch\n"
        "from test_sweep import Said\n"
        f"sweeping.run([Said('a', ({waits!r},), Path(sys.argv[2]) / 'a')], Path(sys.argv[2]), 1, Watch())"
    )
    here = os.path.dirname(__file__)
    process = subprocess.Popen([sys.executable, "-c", code, here, str(tmp_path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "a").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) != 0
    assert time.monotonic() - began < 20
    assert not (tmp_path / sweeping.LOG).exists()  # it is not done, so it is run again


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    specs = [
        {"data": "a", "speed": 3},
        {"steps": "probe"},
        {"data": "a", "name": "x", "steps": {"no": 1}},
        {"data": "a", "name": "y"},
        {"data": "b", "name": "y", "out": str(tmp_path / "z")},
        {"data": "b", "name": "../w"},
    ]
    with pytest.raises(BadSetting) as error:
        sweeping.plan(specs, tmp_path)
    for words in (
        "fit 1 has no option speed",
        "fit 2 names no data",
        "fit 3: steps",
        "name y is there 2 times",
        "'../w'",
    ):
        assert words in str(error.value)
    with pytest.raises(BadSetting, match="lists no fits"):
        sweeping.plan([], tmp_path)
    with pytest.raises(BadSetting, match="--workers 0"):
        tw.sweep([{"data": "a"}], workers=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters.txt").write_text("dear")
    with pytest.raises(StoreError, match="not a Topwork folder"):
        sweeping.plan([{"data": "a", "name": "mine"}], tmp_path)


def test_a_spec_has_the_options_of_fit():
    options = [one for one in inspect.signature(verbs.fit).parameters.values() if one.name != "watch"]
    fields = dataclasses.fields(wishes.Fit)
    assert [(one.name, one.default) for one in fields[1:]] == [(one.name, one.default) for one in options[1:]]
    assert fields[0].name == options[0].name == "data"


def test_specs_become_words_of_the_command_line(tmp_path):
    spec = {"data": "photos/", "steps": ["probe", "lp_ft(epochs=2)"], "keep_leaks": True, "seed": 3, "budget": None}
    (job,) = sweeping.plan([spec], tmp_path)
    assert job.words == ("photos/", "--keep-leaks", "--seed", "3", "--steps", "probe,lp_ft(epochs=2)")
    assert (job.name, job.out) == ("1-photos", tmp_path / "1-photos")


def test_toml_and_jsonl(tmp_path):
    toml, lines = tmp_path / "s.toml", tmp_path / "s.jsonl"
    toml.write_text('data = "photos"\nseed = 1\n[[fit]]\nsteps = "probe"\n[[fit]]\nseed = 2\n')
    assert sweeping.read(toml) == [{"data": "photos", "seed": 1, "steps": "probe"}, {"data": "photos", "seed": 2}]
    for file, text, says in (
        (toml, "fit = 3", r"no \[\[fit\]\]"),
        (toml, "a = ", "s.toml"),
        (lines, '{"data": "a"}\n[1]\n', "line 2: expected a mapping"),
        (lines, "{", "line 1: not JSON"),
        (tmp_path / "s.csv", "", ".jsonl"),
        (tmp_path / "none.toml", None, "cannot be read"),
    ):
        if text is not None:
            file.write_text(text)
        with pytest.raises(BadData, match=says):
            sweeping.read(file)


def test_the_command_tells_a_table_and_fails_if_one_did(tmp_path, monkeypatch):
    from topwork.cli import app

    rows = [
        {"name": "a", "folder": "m/a", "state": "done", "seconds": 3.0, "measure": "accuracy", "step": "probe",
         "metric": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 10}},
        {"name": "b", "folder": "m/b", "state": "failed", "seconds": 1.0, "code": 2, "reason": "no such file"},
    ]  # fmt: skip
    monkeypatch.setattr(tw.verbs, "sweep", lambda *_, **__: rows)
    done = CliRunner().invoke(app, ["sweep", str(tmp_path / "s.jsonl"), "--quiet"])
    assert done.exit_code == 1
    assert "b failed: no such file" in done.stderr
    assert "90.0%" in done.stdout
    assert "80.0 to 95.0 %" in done.stdout
    done = CliRunner().invoke(app, ["sweep", "s.jsonl", "--json"])
    assert json.loads(done.stdout)["fits"] == rows
    assert len(table(rows).rows) == 2
