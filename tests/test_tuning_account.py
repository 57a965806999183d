"""What a tuned step leaves for the report: losses of every training, the folds' results, what moved; and scratch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from topwork import ladder, planning, verbs  # noqa: E402
from topwork.finetune import pace  # noqa: E402
from topwork.ground import divide  # noqa: E402
from topwork.store import tracking  # noqa: E402
from topwork.types import Watch  # noqa: E402

from .tuning import bench  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def test_facts_of_a_training(stripes, backbone, tmp_path):
    b = bench(stripes, "last_stages(2, epochs=2, batch=16)", backbone, run=tmp_path / "run")
    plan = pace.decide(b, float("inf"), 1).plan
    trained = b.train(plan, b.ground.train, "on everything")
    rows = b.ground.train[:20]
    logits = b.logits(trained.model, rows) / 100  # less sure, so that there is a loss
    b.note("fold 1 of 1", rows, logits)
    _, _, facts = b.shipped(trained)
    curve = facts["curves"]["on everything"]
    assert curve["steps"] == list(range(1, plan.steps + 1))
    assert all(value > 0 for value in curve["terms"]["task"])
    y = b.ground.dataset.targets()[rows]
    (fold,) = facts["folds"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert fold["items"] == 20
    assert fold["accuracy"] == pytest.approx((p.argmax(1) == y).mean())
    assert fold["log_loss"] == pytest.approx(-np.log(p[np.arange(20), y]).mean(), rel=1e-4)
    moved = [stage["moved"] for stage in facts["stages"]]
    assert moved[0] == 0
    assert moved[-1] > 0
    assert sum(moved) == facts["proofs"]["free_moved"]
    still = [stage for stage in facts["stages"] if not stage["moved"]]
    assert sum(stage["tensors"] for stage in still) == facts["proofs"]["frozen"]
    assert all(stage["change"] == 0 for stage in still)


def test_from_scratch_forgets_and_learns_for_longer(stripes, backbone):
    b = bench(stripes, "scratch(batch=16)", backbone)
    assert (
        pace.decide(b, float("inf"), 1).plan.steps
        == 4 * pace.decide(bench(stripes, "full(batch=16)", backbone), float("inf"), 1).plan.steps
    )
    b = bench(stripes, "scratch(batch=16, epochs=1)", backbone)
    _, _, facts = b.shipped(b.train(pace.decide(b, float("inf"), 1).plan, b.ground.train, "on everything"))
    assert all(stage["moved"] == stage["tensors"] for stage in facts["stages"])
    assert min(stage["change"] for stage in facts["stages"]) > 0.9  # as far away as chance is: about sqrt(2)


def test_a_climb_tells_its_trackers_of_every_training(stripes, backbone, tmp_path):
    seen, said = {}, []

    class Book:
        where = "a list"

        def __call__(self, training, step, numbers):
            seen.setdefault(training, []).append(step)

        def close(self):
            seen["closed"] = True

    class Tracker:
        def open(self, out):
            return Book()

    ground = divide(verbs.inspect(verbs.read(stripes)).dataset)
    plans = planning.plan(["probe", "lp_ft(epochs=1, batch=32) + view('plain')"], backbone)
    with tracking.keeping(Tracker(), tmp_path / "m", Watch(say=said.append)) as watch:
        climbed = ladder.climb(ground, plans, None, deadline=float("inf"), watch=watch, run=tmp_path / "run")
    assert seen.pop("closed")
    folds = [f"lp_ft fold {k} of 5" for k in range(1, 6)]
    assert list(seen)[:5] == folds
    assert all(steps == [0, 1] for steps in (seen[name] for name in folds))
    assert [line.partition(", step")[0] for line in said if "images/s" in line][:5] == folds  # one line each
    gain = climbed.steps[-1].gain
    assert gain["over"] == "probe"
    assert gain["low"] <= gain["difference"] <= gain["high"]
