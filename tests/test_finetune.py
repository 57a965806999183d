"""Tuned steps from door to door: folds, comparison, training on everything, proofs, resume to the same bits."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

import topwork as tw  # noqa: E402
from topwork import finetune, planning  # noqa: E402
from topwork.adaptation import loop, rehearsal  # noqa: E402
from topwork.adaptation.graft import techniques  # noqa: E402
from topwork.adaptation.patience import Judge  # noqa: E402
from topwork.adaptation.plan import Plan  # noqa: E402
from topwork.backbones import find  # noqa: E402
from topwork.errors import BadSetting, UnknownName  # noqa: E402
from topwork.finetune import frozen_part, pace, views  # noqa: E402
from topwork.terms import Terms  # noqa: E402
from topwork.types import Choice, Watch  # noqa: E402

from .tuning import bench, climbed, on_everything  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

S = 32


def test_a_tuned_step_that_pays_is_trained_on_everything_and_shipped(stripes, backbone, tmp_path):
    spec = "lp_ft(epochs=12, rate=1e-2, batch=16) + view('plain')"
    model = tw.fit(stripes, backbone=backbone, steps=["probe", spec], out=tmp_path / "model")
    report = model.report
    tuned = report["steps"][-1]
    assert tuned["kept"], tuned["verdict"]
    assert tuned["metrics"]["accuracy"]["value"] > report["steps"][0]["metrics"]["accuracy"]["value"]
    proofs = report["tuning"]["proofs"]
    assert proofs["frozen"] == 0
    assert proofs["free_moved"] > 30
    assert report["backbone"]["weights"] != find(backbone).card.weights
    assert report["backbone"]["trained_on"].endswith(spec)
    assert "same label for 80 of 80 images" in report["proof"]["text"]
    assert tw.load(tmp_path / "model").predict(stripes / "left" / "000.png").label in ("left", "right")
    assert not (tmp_path / "model.run").exists()


def test_frozen_stages_stay_bit_for_bit(stripes, backbone, tmp_path):
    ground, climb = climbed(stripes, "last_stages(2, epochs=1, batch=16)", backbone)
    b = bench(stripes, "last_stages(2, epochs=1, batch=16)", backbone)
    _, head, facts = on_everything(b)
    assert facts["proofs"]["frozen"] > 10
    assert facts["proofs"]["free_moved"] > 4
    assert head.arrays["weight"].shape[1] == 2
    assert climb.rungs[-1].probe.held_out.shape == (len(ground.train), 2)


def test_cached_activations_give_the_weights_that_the_whole_network_gives(stripes, backbone):
    spec = "last_stages(2, epochs=2, batch=16, store='float32', views={views})"
    models = []
    for number in (2, 0):  # two epochs: the same views of every image with and without the cache
        b = bench(stripes, spec.format(views=number), backbone)
        assert (b.cached is None) == (number == 0)
        tuned, head, _ = on_everything(b)
        models.append((tuned.trunk.state_dict(), head.arrays))
    (cached, head), (whole, other) = models
    assert all(torch.equal(cached[name], whole[name]) for name in whole)
    assert all(np.array_equal(head[name], other[name]) for name in other)


def test_onnxruntime_below_the_boundary_is_the_same_function(stripes, backbone):
    rows = np.arange(5)
    plain = [
        bench(stripes, "last_stages(2, store='float32')", backbone, engine=engine).cached.plain(rows)
        for engine in ("torch", "auto")
    ]
    for x, y in zip(*plain, strict=True):
        assert np.abs(x - y).max() < 1e-4 * max(1, np.abs(y).max())


def test_plain_views_are_what_extraction_sees(stripes, backbone):
    b = bench(stripes, "lp_ft", backbone)
    rows = np.arange(6)
    with torch.no_grad():
        mine = b.start.backbone.module()(*b.plain(rows)).numpy()
    assert np.abs(mine - b.start.x(rows)).max() < 2e-3 * np.abs(mine).max()


def test_short_of_time_fewer_folds_are_asked():
    affordable = pace.affordable_epochs
    assert affordable(1000, 10, 10, 5) == (10, 5, True)
    assert affordable(160, 10, 10, 5) == (3, 5, True)  # 50 s for an epoch of everything
    assert affordable(100, 10, 10, 5) == (5, 1, True)
    assert affordable(30, 10, 10, 5) == (3, 1, False)
    assert affordable(10, 10, 10, 5) == (1, 1, False)
    assert affordable(5, 10, 10, 5) is None


def test_patience_keeps_items_aside_and_stops(stripes, backbone):
    b = bench(stripes, "lp_ft(epochs=30, rate=1e-2, batch=16, patience=1) + view('plain')", backbone)
    feed, judge = b._judged(b.feed_of(b.ground.train))
    assert len(feed.chosen) == 72
    assert judge.every == 5
    lines = []
    b = dataclasses.replace(b, watch=Watch(progress=lambda stage, done, total: lines.append(done)))
    on_everything(b)
    assert lines[-1] < 150  # of 30 epochs


def test_early_stopping_goes_back_to_the_best_moment():
    values = iter([3.0, 1.0, 2.0, 2.5, 9.0])
    seen = []

    def measure(model):
        seen.append({n: p.detach().clone() for n, p in model.named_parameters()})
        return next(values)

    from topwork.adaptation.feed import Feed
    from topwork.adaptation.graft import Scope, Tune

    X = np.random.default_rng(0).integers(0, 256, (16, S, S, 3), dtype=np.uint8)
    feed = Feed(lambda rows, _: X[rows], np.arange(16) % 2, S, classes=(2,))
    trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    tune = Tune((Scope(),), np.zeros((4, 2), np.float32), np.zeros(2, np.float32))
    plan = Plan(steps=50, batch=8, ema=0.0)
    model = loop.train(trunk, [tune], feed, plan, judge=Judge(measure, every=2, patience=2))
    assert len(seen) == 4  # 3, 1, then two in vain
    assert all(torch.equal(p, seen[1][n]) for n, p in model.named_parameters())


def test_learning_rate_finder_finds_a_rate_at_which_it_learns(stripes, backbone):
    b = bench(stripes, "lp_ft(batch=16)", backbone)
    plan = pace.decide(b, float("inf"), 1).plan
    rate = rehearsal.find_rate(b.trunk, [b.method(b.ground.train)], b.feed_of(b.ground.train), plan, steps=30)
    assert 1e-6 < rate < 0.5
    found = pace.decide(bench(stripes, "lp_ft(batch=16, rate='find')", backbone), float("inf"), 1)
    assert 1e-6 < found.plan.rate < 0.5
    assert "the loss is smallest" in str(found.choices[-1])
    with pytest.raises(BadSetting, match="rate='quick'"):
        techniques("lp_ft(rate='quick')")


@pytest.mark.parametrize(
    ("steps", "error", "says"),
    [
        ("last_stages(9)", BadSetting, "has 4 stages"),
        ("last_stages(0)", BadSetting, "n=0"),
        ("lp_ft + no_such", UnknownName, "no_such"),
        ("lp_ft(speed=3)", BadSetting, "no option speed"),
        ("last_stage(1)", UnknownName, "last_stages"),
    ],
)
def test_bad_steps_stop_before_work(stripes, backbone, tmp_path, steps, error, says):
    with pytest.raises(error, match=says):
        tw.fit(stripes, backbone=backbone, steps=steps, out=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_no_time_is_said(stripes, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "AUTO", ("majority", "probe", "lp_ft"))
    model = tw.fit(stripes, backbone=backbone, budget="3s", out=tmp_path / "model")
    assert "less than 15 s (--budget)" in model.report["steps"][-1]["verdict"]


def test_time_that_runs_out_on_the_way_is_noticed(stripes, backbone, monkeypatch):
    b = bench(stripes, "lp_ft", backbone)
    monkeypatch.setattr(views, "choose_view", lambda *_: time.sleep(1.2) or Choice("views", "crop", "slowly"))
    terms = Terms(None, time.monotonic() + finetune.LEAST_SECONDS + 1, Watch())
    found = finetune.tune(b.ground, "lp_ft", techniques("lp_ft"), b.start, terms)
    assert "left out: the budget has" in found
    most, left = Choice("cached views", 4, ""), time.monotonic() + 100
    slow = frozen_part.affordable_views(most, lambda rows, view: time.sleep(0.05), 100_000, left)
    assert slow.value == -1
    assert frozen_part.affordable_views(most, lambda rows, view: None, 100, left).value == 4


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bits(stripes, backbone, tmp_path):
    words = ["fit", str(stripes), "--backbone", backbone, "--engine", "onnxruntime"]
    words += ["--steps", "probe,lp_ft(epochs=12, rate=1e-2, batch=16) + view('plain')"]
    env = {**os.environ, "TOPWORK_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def start(name):
        command = [sys.executable, "-m", "topwork", *words, "--out", str(tmp_path / name / "model")]
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    calm = start("calm")
    assert calm.wait() == 0
    run = tmp_path / "killed" / "model.run"
    for kill in range(3):
        process = start("killed")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(list(run.glob("fold-*"))) <= kill and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.4)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = start("killed")
    assert last.wait() == 0
    for name in ("model.onnx", "model.safetensors"):
        assert (tmp_path / "calm/model" / name).read_bytes() == (tmp_path / "killed/model" / name).read_bytes()
    both = [json.loads((tmp_path / n / "model/report.json").read_text()) for n in ("calm", "killed")]
    assert both[0]["metrics"] == both[1]["metrics"]


def test_two_losses_are_one_too_many():
    with pytest.raises(BadSetting, match="more than one loss"):
        techniques("lp_ft + focal + cross_entropy")


def test_head_surgery_ships_its_layers(stripes, backbone, tmp_path):
    spec = "last_stages(1, epochs=1, batch=16, head='new') + mlp_head(16)"
    model = tw.fit(stripes, backbone=backbone, steps=["majority", spec], out=tmp_path / "model")
    if model.report["steps"][-1]["kept"]:
        assert model.report["backbone"]["features"] == 16


def test_without_torch_the_usual_steps_end_at_the_probe(monkeypatch):
    assert planning.without_torch(("probe", "last_stages", "lp_ft")) == ("probe", "last_stages", "lp_ft")
    monkeypatch.setattr(planning.importlib.util, "find_spec", lambda name: None)
    assert planning.without_torch(("majority", "probe", "last_stages", "lp_ft")) == ("majority", "probe")
