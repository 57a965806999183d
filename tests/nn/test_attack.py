"""PGD against its closed form on linear models, its bounds, and what it leaves alone."""

import pytest
import torch
from torch import nn

from topwork.nn.attack import limits, pgd, withstands

B, C, S = 6, 2, 4


def images(seed=0):
    return torch.rand(B, 3, S, S, generator=torch.Generator().manual_seed(seed))


def linear(seed=1, classes=C):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * S * S, classes))


def attack(model, x, y, eps=0.1, step=0.1, steps=1, low=-9.0, high=9.0, start=False, seed=0, **more):
    return pgd(model, x, y, eps, step, steps, torch.Generator().manual_seed(seed), low, high, start, **more)


def test_on_a_linear_model_the_worst_change_is_eps_times_the_sign():
    model, x, y = linear(), images(), torch.tensor([0, 1, 0, 1, 0, 1])
    towards = (model[1].weight[1] - model[1].weight[0]).sign().view(3, S, S)  # raises the logit of class 1
    expected = x + 0.1 * torch.where(y == 0, 1.0, -1.0).view(B, 1, 1, 1) * towards
    torch.testing.assert_close(attack(model, x, y), expected)  # FGSM
    torch.testing.assert_close(attack(model, x, y, step=0.03, steps=4), expected)
    torch.testing.assert_close(attack(model, x, y, step=0.25, steps=10, start=True), expected)
    short = attack(model, x, y, step=0.02, steps=3)
    torch.testing.assert_close(short, x + 0.6 * (expected - x))


def test_bounds_hold_per_channel():
    model, x, y = linear(), images(), torch.zeros(B, dtype=torch.int64)
    eps, low, high = torch.tensor([0.05, 0.1, 0.2]).view(1, 3, 1, 1), torch.tensor(0.2), torch.tensor(0.8)
    inner = x.clamp(0.2, 0.8)
    found = attack(model, inner, y, eps, eps, 5, low, high, True)
    assert ((found - inner).abs() <= eps + 1e-6).all()
    assert found.min() >= 0.2
    assert found.max() <= 0.8
    reached = ((found - inner).abs() - eps).abs() < 1e-6
    assert (reached | (found == 0.2) | (found == 0.8)).all()


def test_the_start_comes_from_the_generator_and_nothing_else_is_drawn():
    model, x, y = linear(), images(), torch.zeros(B, dtype=torch.int64)
    before = torch.get_rng_state()
    starts = [attack(model, x, y, steps=0, start=True, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert torch.equal(torch.get_rng_state(), before)
    assert (starts[0] - x).abs().max() == pytest.approx(0.1, abs=0.005)
    generator = torch.Generator().manual_seed(4)
    state = generator.get_state()
    pgd(model, x, y, 0.1, 0.1, 2, generator, 0.0, 1.0, random_start=False)
    assert torch.equal(generator.get_state(), state)


def test_no_parameter_gets_a_gradient_and_the_images_stay():
    model, x, y = linear(), images(), torch.zeros(B, dtype=torch.int64)
    kept = x.clone()
    with torch.no_grad():  # as an evaluation may be
        found = attack(model, x, y, steps=2)
    assert torch.equal(x, kept)
    assert not found.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert (found != x).any()


def test_another_cost_is_raised():
    model, x = linear(), images()
    y = torch.tensor([[1.0, 0.0]]).expand(B, C)
    bce = nn.functional.binary_cross_entropy_with_logits
    found = attack(model, x, y, cost=bce)
    assert bce(model(found), y) > bce(model(x), y)


def test_more_steps_of_a_curved_model_do_more_harm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * S * S, 64), nn.Tanh(), nn.Linear(64, 3))
    x, y = images(), torch.tensor([0, 1, 2, 0, 1, 2])
    loss = nn.functional.cross_entropy
    costs = [loss(model(attack(model, x, y, 0.5, 0.5 * min(1, 2.5 / k), k)), y).item() for k in (1, 10)]
    assert loss(model(x), y) < costs[0] < costs[1]


def test_limits_are_black_white_and_one_level():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    low, high, level = limits(mean, std)
    pixels = torch.tensor([0.0, 255.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1) / 255
    seen = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(torch.cat([low, high]), seen)
    torch.testing.assert_close(high - low, 255 * level)


def test_withstands_against_the_margin_of_a_linear_model():
    """An item is right under every change of at most eps where its margin is above eps |w|_1."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * S * S, 2, bias=False))
    std = (0.5, 0.25, 1.0)
    x = 0.1 * torch.randn(400, 3, S, S, generator=torch.Generator().manual_seed(5))  # far from black and white
    y = torch.arange(400) % 2
    eps = 2.0
    w = (model[1].weight[1] - model[1].weight[0]).detach().view(3, S, S)
    margin = (x * w).sum((1, 2, 3)) * (2 * y - 1)
    reach = sum(eps / (255 * s) * w[c].abs().sum() for c, s in enumerate(std))
    found = withstands(model, x, y, (0.5, 0.5, 0.5), std, torch.Generator(), eps, 20)
    clear = (margin - reach).abs() > 1e-4
    assert torch.equal(found[clear], (margin > reach)[clear])
    assert 0.05 < found.float().mean() < (margin > 0).float().mean() - 0.05, found.float().mean()
