"""SimCLR: NT-Xent as the paper writes it, one pair after the other."""

import math

import pytest
import torch

from topwork import plugins
from topwork.adaptation.pretraining.simclr import Simclr, nt_xent
from topwork.errors import BadSetting

from ._small import Plain, batch, facts, half_precision, images
from ._strokes import beats_random


def by_hand(z, t):
    """Equation 1 of the paper with plain numbers: rows 0 .. B-1 are the first views, B .. 2B-1 the second ones."""

    def similar(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    rows, total = z.tolist(), 0.0
    B = len(rows) // 2
    for i in range(2 * B):
        j = i + B if i < B else i - B
        among = sum(math.exp(similar(rows[i], rows[k]) / t) for k in range(2 * B) if k != i)
        total -= math.log(math.exp(similar(rows[i], rows[j]) / t) / among)
    return total / (2 * B)


@pytest.mark.parametrize(("B", "K", "t"), [(2, 3, 1.0), (5, 4, 0.2), (9, 16, 0.07)])
def test_equals_the_papers_formula(B, K, t):
    z = torch.randn(2 * B, K, generator=torch.Generator().manual_seed(B))
    assert nt_xent(z, t).item() == pytest.approx(by_hand(z, t), rel=1e-5)


@pytest.mark.parametrize(("B", "t"), [(2, 1.0), (4, 0.5), (8, 0.1)])
def test_same_pairs_and_orthogonal_negatives(B, t):
    z = torch.cat([3 * torch.eye(B, 8), 0.5 * torch.eye(B, 8)])  # lengths do not count
    expected = math.log(1 + (2 * B - 2) * math.exp(-1 / t))  # -log(e^(1/t) / (e^(1/t) + (2B - 2) e^0))
    assert nt_xent(z, t).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_all_the_same_says_nothing():
    assert nt_xent(torch.ones(12, 5), 0.1).item() == pytest.approx(math.log(11), rel=1e-5)


def test_one_pair_has_no_negatives():
    assert nt_xent(torch.randn(2, 4), 0.2).item() == pytest.approx(0, abs=1e-6)


def test_gradient_equals_finite_differences():
    z = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: nt_xent(z, 0.3), z)


def test_the_loss_is_of_the_projected_views_and_reaches_the_trunk():
    trunk = Plain()
    method = Simclr(hidden=7, out=5)
    model = method.prepare(trunk, facts(trunk, 4)).train()
    one, other = images(6, 4, 1), images(6, 4, 2)
    terms = method.loss(model, batch(one, other))
    z = model.projector(trunk(torch.cat([one, other])))
    assert z.shape == (12, 5)
    assert terms["nt_xent"].item() == pytest.approx(by_hand(z, 0.2), rel=1e-5)
    terms["nt_xent"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trunk.parameters())
    assert method.finish(model) is trunk


def test_a_seed_decides_the_head():
    models = [Simclr().prepare(Plain(), facts(Plain(), 4, seed=seed)) for seed in (3, 3, 4)]
    heads = [torch.cat([p.flatten() for p in model.projector.parameters()]) for model in models]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    "spec", ["simclr(temperature=0)", "simclr(temperature='cold')", "simclr(out=1)", "simclr(hidden=1.5)"]
)
def test_bad_options_stop_at_once(spec):
    with pytest.raises(BadSetting, match="simclr: "):
        plugins.make("adaptation.pretraining", spec)


def test_one_image_is_too_few():
    with pytest.raises(BadSetting, match="at least 2"):
        Simclr().prepare(Plain(), facts(Plain(), 4, items=1))


def test_half_precision():
    loss, gradient = half_precision(Simclr(hidden=7, out=5), Plain(), 4, images(6, 4, 1), images(6, 4, 2))
    assert 0 < loss < 20
    assert 0 < gradient < math.inf


@pytest.mark.slow
def test_a_short_training_beats_random():
    assert beats_random("simclr", steps=100).low > 0
