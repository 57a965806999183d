"""The page of a training that goes on: what it shows, what it costs, and that it never ends one."""

import re
import time

import pytest

import topwork as tw
from topwork import live
from topwork.evaluation.live import family
from topwork.types import Metric, Step, Watch

STEPS = (
    Step("majority", "bundled:pixels + majority", {"accuracy": Metric(0.2, 0.15, 0.25, 300)}, 0.1, True, "the start"),
    Step("probe", "bundled + ridge", {"accuracy": Metric(0.914, 0.88, 0.94, 300)}, 12.0, True, "+71.4 points"),
    Step("full <b>", "bundled", {}, 0.0, False, "left out: one epoch takes about 900 s"),
)  # fmt: skip


def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def learn(page, name, steps, first=0, total=None):
    for step in range(first, steps):
        page.watch.progress(name, step + 1, total or steps)
        page.watch.track(name, step, {"rate": 0.1, "task": 1 / (step + 1)})


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page that is written at every chance."""
    monkeypatch.setattr(live, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(live, "SHARE", float("inf"))
    said, seen = [], []
    watch = Watch(lambda *how: seen.append(how), said.append, lambda *what: seen.append(what))
    found = live.Page(tmp_path, "flowers", watch)
    found.said, found.seen, found.file = said, seen, tmp_path / live.NAME
    return found


def test_a_curve_keeps_its_means_in_few_points():
    curve = live.Curve(0.0)
    for step in range(1000):
        curve.add(step, {"task": float(step)} | ({"rare": 1.0} if step == 500 else {}))
    fact = curve.fact("t")
    assert live.POINTS / 2 <= len(fact["steps"]) < live.POINTS
    assert curve.stride == 16
    for done, mean in zip(fact["steps"], fact["terms"]["task"], strict=True):
        assert mean == pytest.approx(done - 1 - (curve.stride - 1) / 2)  # of the steps up to its own
    assert [v for v in fact["terms"]["rare"] if v is not None] == [1.0]


def test_what_is_done_again_is_drawn_once():
    curve = live.Curve(0.0)
    for step in [*range(8), *range(5, 10)]:
        curve.add(step, {"task": float(step)})
    assert curve.fact("t")["steps"] == list(range(1, 11))
    curve.add(0, {"task": 7.0})  # another training of the same name
    assert curve.fact("t")["terms"]["task"] == [7.0]


def test_time_left_follows_the_pace_since_it_was_taken_up():
    curve = live.Curve(0.0)
    assert curve.left() is None
    curve.at(400, 500, 10.0)
    assert curve.left() is None
    curve.at(420, 500, 14.0)
    assert curve.left() == pytest.approx(16.0)


def test_it_shows_the_trainings_and_the_ladder_and_needs_nothing_else(page):
    page.climbed(STEPS)
    learn(page, "lp_ft fold 1 of 2", 20)
    learn(page, "lp_ft fold 2 of 2", 5, total=20)
    text = page.file.read_text()
    assert '<meta http-equiv="refresh" content="' in text
    assert ">25.0\u202f%</span>" in text
    assert "5 of 20" in text
    assert text.count('class="learnt"') == text.count('class="fold"') == 2  # task, learning rate
    assert "Loss term learning rate against steps" in text
    assert "91.4\u202f%" in text
    assert "full &lt;b&gt;" in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "script" not in text
    assert len(page.seen) == 50  # whoever watched before still does
    assert sum(line.startswith("live: ") for line in page.said) == 1
    assert page.said[0].endswith(live.NAME)
    page.watch.progress("extract", 7, 300)
    page.write()
    assert "Now: extract, 7 of 300." in page.file.read_text()


def test_nothing_is_written_before_something_learns(page):
    page.watch.progress("extract", 1, 2)
    page.climbed(STEPS)
    assert not page.file.exists()


def test_where_the_work_ends_otherwise_it_stands_still(tmp_path):
    def stopped():
        with live.keeping(tmp_path, "flowers", Watch()) as page:
            learn(page, "full on everything", 3, total=9)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    text = (tmp_path / live.NAME).read_text()
    assert "It was stopped. The same command goes on" in text
    assert "refresh" not in text


def test_nowhere_means_the_watch_itself(tmp_path):
    watch = Watch()
    with live.keeping(None, "flowers", watch) as page:
        assert page.watch is watch
        page.climbed(STEPS)
    with live.keeping(tmp_path / "absent", "flowers", watch) as page:
        learn(page, "full", 3)
    assert not (tmp_path / "absent").exists()


def test_a_dear_page_is_written_seldom(tmp_path, monkeypatch):
    page, shown = live.Page(tmp_path, "flowers", Watch()), []
    monkeypatch.setattr("topwork.evaluation.live.render", lambda n: shown.append(n["refresh"]) or spin(0.02) or "")
    page.write()
    assert page._due - time.monotonic() == pytest.approx(live.PAUSE_SECONDS, abs=0.1)  # templates were opened
    page.write()
    assert page._due - time.monotonic() > 0.02 / live.SHARE - 0.5
    learn(page, "full", 50)
    assert len(shown) == 2


def test_a_full_disk_does_not_end_a_training(page, monkeypatch):
    def full(target, data):
        raise OSError(28, "No space left on device")

    learn(page, "full", 2, total=9)
    monkeypatch.setattr(live, "replace", full)
    learn(page, "full", 9, first=2)
    told = [line for line in page.said if "not written any more" in line]
    assert told == ["live: the page is not written any more (No space left on device); the training goes on"]


def test_trainings_of_one_step_belong_together():
    names = ("lp_ft fold 1 of 5", "lp_ft on everything", "lp_ft with cats fold 2 of 2", "lp_ft all items", "pretrain")
    assert [family(name) for name in names] == ["lp_ft", "lp_ft", "lp_ft with cats", "lp_ft", "pretrain"]


def test_a_fit_has_one_while_it_learns_and_none_afterwards(stripes, backbone, tmp_path):
    pytest.importorskip("timm")
    said, pages, file = [], [], tmp_path / "model.run" / live.NAME

    def track(training, step, numbers):
        pages.extend([file.read_text()] if file.exists() else [])

    steps = "majority,probe,lp_ft(epochs=1, batch=16) + view('plain')"
    tw.fit(stripes, backbone=backbone, steps=steps, engine="torch", out=tmp_path / "model",
           watch=Watch(say=said.append, track=track))  # fmt: skip
    assert sum(line.startswith("live: ") for line in said) == 1
    assert "The ladder so far" in pages[-1]
    assert ">probe</b>" in pages[-1]
    assert "lp_ft fold 1 of 5" in pages[0]
    assert not file.parent.exists()
