import dataclasses
import hashlib
import json
import math
import os
import signal
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from topwork.adaptation import Method
from topwork.adaptation.feed import Feed, Order, Setup
from topwork.adaptation.loop import train
from topwork.adaptation.plan import Plan
from topwork.adaptation.pretraining.supervised import Supervised
from topwork.adaptation.rehearsal import pace
from topwork.errors import BadSetting
from topwork.nn.schedule import warm_cosine
from topwork.store.runs import Run
from topwork.types import Watch

pytestmark = pytest.mark.usefixtures("one_thread")

N, S, C = 24, 8, 3
X = np.random.default_rng(0).integers(0, 256, (N, S, S, 3), dtype=np.uint8)
Y = np.arange(N) % C
FEED = Feed(lambda rows, _: X[rows], Y, S, classes=(C,))
PLAN = Plan(steps=12, batch=8, rate=1e-2, seed=5)


def small(*, norm=True):
    """Convolution, batch norm, dropout: all that could spoil a resume."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3, 2),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(0.3 if norm else 0),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def bits(model):
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in model.state_dict().values())).hexdigest()


@dataclass(frozen=True)
class Mean(Method):
    """Pulls the mean of the features of one view to 1: no labels, nothing random."""

    views = ("plain",)

    def prepare(self, trunk, facts):
        model = nn.Module()
        model.trunk = trunk
        return model

    def loss(self, model, batch):
        return {"gap": ((model.trunk(batch.views[0]) - 1) ** 2).mean()}


def test_an_epoch_shows_every_item_once_in_another_order():
    order = Order(np.zeros(10, np.int64), None, seed=1)
    rows, visits = order.at(0, 30)
    epochs = rows.reshape(3, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert visits.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    for start in (0, 7, 13):
        np.testing.assert_array_equal(order.at(start, 9)[0], rows[start : start + 9])
    assert Order(np.zeros(10, np.int64), None, seed=2).at(0, 10)[0].tolist() != rows[:10].tolist()


def test_shares_draw_sources_as_they_say_and_items_of_a_source_evenly():
    source = np.repeat([0, 1], [90, 10])
    order = Order(source, (0.75, 0.25), seed=0)
    rows, visits = order.at(0, 400)  # four epochs of 75 + 25
    assert Counter(source[rows].tolist()) == {0: 300, 1: 100}
    assert Counter(source[rows[:100]].tolist()) == {0: 75, 1: 25}
    each = Counter(rows.tolist())
    assert {each[i] for i in range(90)} == {3, 4}
    assert {each[i] for i in range(90, 100)} == {10}
    assert len({(r, v) for r, v in zip(rows.tolist(), visits.tolist(), strict=True)}) == 400  # no view comes twice
    assert (np.diff(source[rows[:100]]) != 0).sum() > 20  # mixed


def test_batches_hold_what_belongs_together():
    feed = dataclasses.replace(FEED, extras={"teacher": np.arange(N, dtype=np.float32)[:, None]})
    (step, ((batch,),)) = next(feed.batches([Supervised()], 4, Setup(steps=6, batch=8, seed=0)))
    assert step == batch.step == 4
    assert batch.done == 4 / 6
    np.testing.assert_array_equal(batch.targets, Y[batch.rows])
    np.testing.assert_array_equal(batch.extras["teacher"][:, 0], batch.rows)
    assert batch.views[0].shape == (8, 3, S, S)
    steps = [step for step, _ in feed.batches([Supervised()], 4, Setup(steps=6, batch=8))]
    assert steps == [4, 5]


def test_methods_share_views_of_one_name_and_processes_share_a_batch():
    @dataclass(frozen=True)
    class Two(Mean):
        views = ("local", "plain", "plain")

    setup = Setup(steps=1, batch=8)
    ((_, (part,)),) = FEED.batches([Mean(), Two()], 0, setup)
    assert part[1].views[0].shape[-1] == S // 2
    assert part[0].views[0] is part[1].views[1]
    assert part[1].views[1] is not part[1].views[2]
    halves = [
        next(FEED.batches([Mean()], 0, dataclasses.replace(setup, process=i, processes=2)))[1][0][0].rows
        for i in (0, 1)
    ]
    assert sorted(torch.cat(halves).tolist()) == sorted(part[0].rows.tolist())


def test_learning_rate():
    rates = [warm_cosine(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.001
    assert warm_cosine(0, 1, 0.0) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_against_a_plain_loop(optimizer):
    plan = dataclasses.replace(PLAN, optimizer=optimizer, clip=0.05, ema=0.5, weight_decay=0.1)
    trained = train(small(norm=False), [Mean()], FEED, plan)
    plain, average = small(norm=False), None
    weights = list(plain.parameters())
    slots = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]
    for step, ((batch,),) in FEED.batches([Mean()], 0, Setup(plan.steps, plan.batch, plan.seed)):
        loss = ((plain(batch.views[0]) - 1) ** 2).mean()
        gradients = torch.autograd.grad(loss, weights)
        length = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        rate = plan.rate * ((step + 1) if step < 1 else (1 + math.cos(math.pi * (step - 1) / 11)) / 2)
        with torch.no_grad():
            for w, g, (m, v) in zip(weights, gradients, slots, strict=True):
                g = g * min(1, 0.05 / length)
                decay = 0.1 if w.ndim > 1 else 0.0
                if optimizer == "sgd":
                    g = g + decay * w
                    m.mul_(0.9).add_(g)
                    w -= rate * (g + 0.9 * m)
                else:
                    w *= 1 - rate * decay
                    m.mul_(0.9).add_(0.1 * g)
                    v.mul_(0.999).add_(0.001 * g**2)
                    w -= rate * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            now = [w.clone() for w in weights]
            keep = min(0.5, (1 + step) / (10 + step))
            average = [
                keep * a + (1 - keep) * w for a, w in zip(average or small(norm=False).parameters(), now, strict=True)
            ]
    for found, expected in zip(trained.parameters(), average, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-4)


def test_parts_are_the_same_step():
    plan = dataclasses.replace(PLAN, steps=4)
    one = train(small(norm=False), [Mean()], FEED, plan)
    two = train(small(norm=False), [Mean()], FEED, dataclasses.replace(plan, parts=2))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("at", [1, 5, 11])
def test_stopped_and_resumed_gives_the_same_bits(tmp_path, at):
    expected = bits(train(small(), [Supervised()], FEED, PLAN))
    with Run(tmp_path / "whole", {}) as run:
        assert bits(train(small(), [Supervised()], FEED, PLAN, run)) == expected

    def stop(_stage, done, _total):
        if done == at:
            raise MemoryError  # not asked for, nothing is saved

    with Run(tmp_path / "cut", {}, save_seconds=0) as run, pytest.raises(MemoryError):
        train(small(), [Supervised()], FEED, PLAN, run, Watch(progress=stop))
    torch.manual_seed(99)
    with Run(tmp_path / "cut", {}) as run:
        assert bits(train(small(), [Supervised()], FEED, PLAN, run)) == expected
        log = run.read_log()
    assert [line["step"] for line in log] == list(range(PLAN.steps))
    whole = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [line["cross_entropy"] for line in log] == [line["cross_entropy"] for line in whole]


def test_ctrl_c_saves_first(tmp_path):
    def stop(_stage, done, _total):
        if done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with Run(tmp_path / "run", {}, save_seconds=1000) as run:
        with pytest.raises(KeyboardInterrupt):
            train(small(), [Supervised()], FEED, PLAN, run, Watch(progress=stop))
        assert run.load() is not None
        assert run.step == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loss_that_is_not_finite_ends_it_before_anything_is_saved(tmp_path):
    @dataclass(frozen=True)
    class Bad(Mean):
        def loss(self, model, batch):
            return {"gap": super().loss(model, batch)["gap"] * (math.nan if batch.step == 3 else 1)}

    with Run(tmp_path / "run", {}) as run:
        with pytest.raises(BadSetting, match=r"not finite any more at step 3 of 12.*than 0.01 \(--rate\)"):
            train(small(), [Bad()], FEED, PLAN, run)
        assert run.load() is None


def test_several_methods_are_summed_and_logged_by_name(tmp_path):
    with Run(tmp_path / "run", {}) as run:
        train(small(), [Mean(), Supervised(), Supervised(smoothing=0.0)], FEED, dataclasses.replace(PLAN, steps=2), run)
        names = set(run.read_log()[0]) - {"step", "rate", "seconds"}
    assert names == {"mean.gap", "supervised1.cross_entropy", "supervised2.cross_entropy"}


def test_without_average_the_last_weights_are_handed_back():
    last = train(small(), [Supervised()], FEED, dataclasses.replace(PLAN, ema=0.0))
    mean = train(small(), [Supervised()], FEED, dataclasses.replace(PLAN, ema=0.9))
    assert bits(last) != bits(mean)
    assert not last.training


def test_it_says_as_much_as_was_asked_and_tracks_every_step():
    for lines in (1, 10):
        said, seen = [], []
        watch = Watch(say=said.append, track=lambda *numbers: seen.append(numbers))  # noqa: B023
        train(small(), [Supervised()], FEED, PLAN, watch=watch, stage="lp_ft fold 1", lines=lines)
        assert [step for _, step, _ in seen] == list(range(PLAN.steps))
        assert {name for name, _, _ in seen} == {"lp_ft fold 1"}
        assert all(numbers.keys() == {"rate", "cross_entropy"} for _, _, numbers in seen)
        assert said[-1].startswith(f"lp_ft fold 1, step {PLAN.steps} of {PLAN.steps}: cross_entropy ")
        assert len(said) == 1 or lines > 1


def test_it_learns_and_the_pace_is_measured(tmp_path):
    said = []
    with Run(tmp_path / "run", {}) as run:
        train(small(norm=False), [Mean()], FEED, dataclasses.replace(PLAN, steps=60), run, Watch(say=said.append))
        gaps = [line["gap"] for line in run.read_log()]
    assert "images/s" in said[-1]
    assert len(gaps) == 60
    assert sum(gaps[-10:]) < 0.8 * sum(gaps[:10])
    assert 0 < pace(small, [Mean()], FEED, PLAN, 0.01) < 1
