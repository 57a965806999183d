"""Episodes: how they are fed, what prototypes and Reptile make of them, and few shots of classes never seen."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from topwork.adaptation import Batch, Facts, loop
from topwork.adaptation.feed import Feed, Order, Setup
from topwork.adaptation.plan import Plan
from topwork.adaptation.pretraining._episodes import groups
from topwork.adaptation.pretraining.prototypical import Prototypical, nearest_mean
from topwork.adaptation.pretraining.reptile import Reptile
from topwork.errors import BadSetting

pytestmark = pytest.mark.usefixtures("one_thread")


class Line(torch.nn.Module):
    """(B, 3, 2, 2) -> (B, 4): linear, so that everything can be computed by hand."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(12, 4, generator=generator) / 4)

    def forward(self, x):
        return x.flatten(1) @ self.weight


def batch(y, source=None, seed=0, x=None):
    y = torch.tensor(y)
    x = torch.randn(len(y), 3, 2, 2, generator=torch.Generator().manual_seed(seed)) if x is None else x
    source = torch.zeros_like(y) if source is None else torch.tensor(source)
    return Batch((x,), torch.arange(len(y)), y, source, {}, 0, 0.0, torch.Generator().manual_seed(0))


FACTS = Facts(4, 2, (3, 2), 20, 5)


def test_an_episodic_epoch_shows_every_item_once_class_by_class():
    draw = np.random.default_rng(0)
    y = np.repeat(np.arange(6), [16, 16, 20, 8, 8, 3])
    source = np.repeat([0, 1], [52, 19])
    mixed = draw.permutation(len(y))
    y, source = y[mixed], source[mixed]
    order = Order(source, None, 1, None, (2, 8), y)
    for epoch in (0, 3):
        rows, visits = order.at(epoch * len(y), len(y))
        assert np.array_equal(np.sort(rows), np.arange(len(y)))
        assert (visits == epoch).all()
        begins = np.flatnonzero(np.diff(y[rows] * 10 + source[rows], prepend=-1))
        lengths = np.diff([*begins, len(y)])
        assert (lengths <= 16).all()  # two runs of one class may touch
        assert (lengths >= 8).sum() >= 7
    again = Order(source, None, 1, None, (2, 8), y).at(0, len(y))[0]
    assert np.array_equal(again, order.at(0, len(y))[0])
    assert not np.array_equal(again, order.at(len(y), len(y))[0])
    assert np.array_equal(order.at(5, 20)[0], order.at(0, 40)[0][5:25])


def test_batches_of_usual_size_hold_episodes_even_of_many_classes():
    y = np.arange(600) % 100  # 6 of each: a batch drawn at random would hold hardly a pair
    feed = Feed(lambda rows, _: np.zeros((len(rows), 8, 8, 3), np.uint8), y, 8, classes=(100,))
    asked = {}
    for method in (Prototypical(), Prototypical(shots=2, queries=4)):
        for _, ((one,),) in feed.batches([method], 0, Setup(steps=6, batch=64)):
            asked.setdefault(method.shots, []).append(int(groups(one).plays.sum()))
    assert min(min(n) for n in asked.values()) >= 56


def test_shares_count_in_episodes_too():
    y, source = np.arange(90) % 3, np.repeat([0, 1], [60, 30])
    rows, visits = Order(source, (0.2, 0.8), 0, None, (3, 4), y).at(0, 90)
    assert (source[rows] == 1).sum() == 72
    assert visits.max() == 2


def test_groups_by_hand():
    b = batch([0, 1, 0, -1, 1, 0, 0, -1, 0, 2], [0, 0, 0, 0, 0, 0, 1, 1, 1, 0])
    g = groups(b)
    assert g.plays.tolist() == [True, True, True, False, True, True, False, False, False, False]
    assert g.rank.tolist() == [0, 0, 1, 0, 1, 2, 0, 0, 1, 0]
    # source 1 has one class of two items: nothing to tell it from


def test_prototype_loss_against_a_plain_loop():
    y = [0, 1, 0, 1, 2, 0, 1, 0, 2, 0, 1, 1, 0]
    source = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    y[8] = 1
    b, method, trunk = batch(y, source), Prototypical(shots=2, temperature=3.0), Line()
    model = method.prepare(trunk, FACTS)
    (value,) = method.loss(model, b).values()
    z = trunk(b.views[0]).detach().double().numpy()
    total, count = 0.0, 0
    for s in (0, 1):
        members = {}
        for i, (label, of) in enumerate(zip(y, source, strict=True)):
            if of == s:
                members.setdefault(label, []).append(i)
        members = {label: rows for label, rows in members.items() if len(rows) >= 2}
        means = {label: z[rows[: min(2, len(rows) - 1)]].mean(0) for label, rows in members.items()}
        for label, rows in members.items():
            for i in rows[min(2, len(rows) - 1) :]:
                near = {other: np.exp(-((z[i] - mean) ** 2).sum() / 3) for other, mean in means.items()}
                total -= np.log(near[label] / sum(near.values()))
                count += 1
    assert value.item() == pytest.approx(total / count, rel=1e-5)


def test_without_an_episode_nothing_is_learnt_and_nothing_breaks():
    for method in (Prototypical(), Reptile()):
        model = method.prepare(Line(), FACTS)
        (value,) = method.loss(model, batch([0, 1, 2, -1], [0, 0, 0, 0])).values()
        value.backward()
        assert value.item() == 0
        assert model.trunk.weight.grad.abs().max() == 0


def test_reptiles_gradient_is_the_way_that_plain_descent_goes():
    y = [0, 1, 2] * 6
    b, method = batch(y), Reptile(inner_steps=2, inner_rate=0.05)
    trunk = Line()
    (value,) = method.loss(method.prepare(trunk, FACTS), b).values()
    value.backward()
    x, target = b.views[0].flatten(1), torch.tensor(y)
    part = torch.arange(18) // 3 % 3
    with torch.no_grad():
        z = x[part == 0] @ trunk.weight
        means = torch.stack([z[target[part == 0] == c].mean(0) for c in range(3)])
    phi = [trunk.weight.detach().clone(), 2 * means, -(means**2).sum(1)]
    losses = []
    for j in (1, 2):
        phi = [p.detach().requires_grad_() for p in phi]
        loss = F.cross_entropy(x[part == j] @ phi[0] @ phi[1].T + phi[2], target[part == j])
        gradients = torch.autograd.grad(loss, phi)
        phi = [p - 0.05 * step for p, step in zip(phi, gradients, strict=True)]
        losses.append(loss.item())
    assert torch.allclose(trunk.weight.grad, (trunk.weight.detach() - phi[0].detach()) / 0.1, atol=1e-5)
    assert value.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_tasks_of_two_sources_count_alike():
    y, source = [0, 1] * 12, [0, 0] * 8 + [1, 1] * 4
    method, gradients = Reptile(inner_steps=1), []
    whole = batch(y, source)
    for rows in (torch.tensor(source) == 0, torch.tensor(source) == 1, torch.ones(24, dtype=torch.bool)):
        trunk = Line()
        some = dataclasses.replace(
            whole, views=(whole.views[0][rows],), targets=whole.targets[rows], source=whole.source[rows]
        )
        sum(method.loss(method.prepare(trunk, FACTS), some).values()).backward()
        gradients.append(trunk.weight.grad)
    assert torch.allclose(gradients[2], (gradients[0] + gradients[1]) / 2, atol=1e-5)


@pytest.mark.parametrize("spec", [Prototypical, Reptile])
def test_what_cannot_be_is_said(spec):
    with pytest.raises(BadSetting, match="ways=1"):
        spec(ways=1)
    for facts in (dataclasses.replace(FACTS, classes=()), dataclasses.replace(FACTS, multilabel=True)):
        with pytest.raises(BadSetting, match="one label"):
            spec().prepare(Line(), facts)
    with pytest.raises(BadSetting, match="at least two classes"):
        spec().prepare(Line(), dataclasses.replace(FACTS, classes=(1,)))


def few_shot(trunk, x, y, shots=5, times=60):
    """Mean accuracy (times,) of nearest class means of `shots` items a class, the same episodes for every trunk."""
    with torch.no_grad():
        z = trunk.eval()(x)
    found = []
    for number in range(times):
        draw = torch.Generator().manual_seed(number)
        order = torch.randperm(len(y), generator=draw)
        support = torch.cat([order[y[order] == label][:shots] for label in torch.unique(y)])
        asked = order[~torch.isin(order, support)][:100]
        found.append((nearest_mean(z[support], y[support], z[asked]) == y[asked]).float().mean().item())
    return np.array(found)


@pytest.mark.parametrize("method", [Prototypical(ways=6, shots=5, queries=5), Reptile(ways=3, shots=4)])
def test_five_shots_of_digits_never_seen_are_told_better_than_by_a_random_network(method):
    pytest.importorskip("timm")
    import timm
    from sklearn.datasets import load_digits

    from topwork.backbones.trunk import TimmTrunk

    digits = load_digits()
    frames = np.repeat((digits.images * 15.9).astype(np.uint8)[..., None], 3, 3).repeat(4, 1).repeat(4, 2)
    seen = np.flatnonzero(digits.target < 6)
    y = digits.target[seen]
    several = isinstance(method, Reptile)  # two tasks: 0 to 2, and 3 to 5
    source = (y >= 3).astype(np.int64) if several else None
    feed = Feed(
        lambda rows, _: frames[seen[rows]], (y % 3 if several else y).astype(np.int64), 32, source,
        (3, 3) if several else (6,),
    )  # fmt: skip

    def trunk():
        torch.manual_seed(0)
        return TimmTrunk(timm.create_model("test_resnet", num_classes=0))

    rows = np.flatnonzero(digits.target >= 6)
    x = torch.from_numpy(frames[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
    random = trunk().train()
    with torch.no_grad():
        for _ in range(15):
            random(torch.from_numpy(frames[seen[::4]]).permute(0, 3, 1, 2).float() / 127.5 - 1)  # settles its norms
    learnt = loop.train(trunk(), [method], feed, Plan(steps=45, batch=64, rate=2e-3, seed=0, ema=0.0))
    unseen = torch.from_numpy(digits.target[rows])
    before, after = few_shot(random, x, unseen), few_shot(learnt, x, unseen)
    gain = after - before
    assert gain.mean() - 3 * gain.std() / len(gain) ** 0.5 > 0.03
