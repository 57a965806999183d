"""Barlow Twins: the cross-correlation number by number, and the hand-made cases where it is known."""

import math

import pytest
import torch

from topwork import plugins
from topwork.adaptation.pretraining.barlow_twins import EPSILON, BarlowTwins, correlation, distances
from topwork.errors import BadSetting

from ._small import Plain, batch, facts, half_precision, images
from ._strokes import beats_random


def by_hand(one, other, redundancy):
    """Equations 1 and 2 of the paper with plain numbers; columns are centred first, as its text says."""
    a, b = one.double().tolist(), other.double().tolist()
    B, K = len(a), len(a[0])

    def standard(rows, k):
        column = [row[k] for row in rows]
        mean = sum(column) / B
        deviation = math.sqrt(sum((x - mean) ** 2 for x in column) / B + EPSILON)
        return [(x - mean) / deviation for x in column]

    agreement = rest = 0.0
    for i in range(K):
        for j in range(K):
            c = sum(x * y for x, y in zip(standard(a, i), standard(b, j), strict=True)) / B
            agreement += (1 - c) ** 2 if i == j else 0.0
            rest += c**2 if i != j else 0.0
    return agreement, redundancy * rest


@pytest.mark.parametrize(("B", "K"), [(2, 2), (5, 3), (16, 7)])
def test_equals_the_papers_formula(B, K):
    g = torch.Generator().manual_seed(K)
    one = 3 * torch.randn(B, K, generator=g) + 1
    other = one + torch.randn(B, K, generator=g)
    agreement, rest = distances(correlation(one, other))
    expected, expected_rest = by_hand(one, other, 1.0)
    assert agreement.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert rest.item() == pytest.approx(expected_rest, rel=1e-4)


def hadamard(columns):
    """(8, columns) of +-1: columns have mean 0, variance 1 and are orthogonal."""
    h = torch.ones(1, 1)
    for _ in range(3):
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h[:, 1 : 1 + columns]


def test_nothing_is_lost_when_the_correlation_is_the_identity():
    z = 40 * hadamard(5) + 7  # neither length nor mean counts
    c = correlation(z, 3 * z - 2)
    torch.testing.assert_close(c, torch.eye(5), atol=1e-5, rtol=0)
    assert sum(distances(c)).item() == pytest.approx(0, abs=1e-6)


def test_known_cases():
    z = 100 * hadamard(4)
    agreement, rest = distances(correlation(z, -z))  # C = -I: each (1 + 1)^2
    assert (agreement.item(), rest.item()) == (pytest.approx(16, rel=1e-4), pytest.approx(0, abs=1e-6))
    agreement, rest = distances(correlation(z[:, :1].expand(-1, 4), z[:, :1].expand(-1, 4)))  # C is all ones
    assert (agreement.item(), rest.item()) == (pytest.approx(0, abs=1e-6), pytest.approx(12, rel=1e-4))
    agreement, rest = distances(correlation(torch.ones(8, 4), z))  # a column that never changes: C = 0
    assert (agreement.item(), rest.item()) == (4.0, 0.0)


def test_the_loss_weighs_both_terms_and_reaches_the_trunk():
    trunk = Plain()
    one, other = images(6, 4, 1), images(6, 4, 2)
    for scale, factor in ((None, 1 / 5), (0.025, 0.025)):
        method = BarlowTwins(redundancy=0.3, hidden=7, out=5, scale=scale)
        model = method.prepare(trunk, facts(trunk, 4)).train()
        terms = method.loss(model, batch(one, other))
        z = model.projector(trunk(torch.cat([one, other])))
        expected = [factor * part for part in by_hand(z[:6], z[6:], 0.3)]
        assert [terms["agreement"].item(), terms["redundancy"].item()] == pytest.approx(expected, rel=1e-4)
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trunk.parameters())
    assert method.finish(model) is trunk


def test_gradient_equals_finite_differences():
    z = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: sum(distances(correlation(*z.chunk(2)))), z)


@pytest.mark.parametrize("spec", ["barlow_twins(redundancy=0)", "barlow_twins(out=1)", "barlow_twins(scale=-1)"])
def test_bad_options_stop_at_once(spec):
    with pytest.raises(BadSetting, match="barlow_twins: "):
        plugins.make("adaptation.pretraining", spec)


def test_one_image_is_too_few():
    with pytest.raises(BadSetting, match="at least 2"):
        BarlowTwins().prepare(Plain(), facts(Plain(), 4, items=1))


def test_half_precision():
    method = BarlowTwins(hidden=7, out=5)
    loss, gradient = half_precision(method, Plain(), 4, images(6, 4, 1), images(6, 4, 2))
    assert 0 < loss < 20
    assert 0 < gradient < math.inf


@pytest.mark.slow
def test_a_short_training_beats_random():
    assert beats_random("barlow_twins", steps=120).low > 0
