"""Adversarial training: the change that is learnt from, the modes, the units, and that it helps."""

import numpy as np
import pytest
import torch
from torch import nn

from topwork.adaptation import Batch, Facts
from topwork.adaptation.augmentation.mixup import Mixup
from topwork.adaptation.graft import Scope, Tune
from topwork.adaptation.robust.adversarial import LIMITS, Adversarial, evaluating
from topwork.errors import BadSetting
from topwork.nn.attack import withstands

pytestmark = pytest.mark.usefixtures("one_thread")

B, C, S = 6, 2, 4
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
FACTS = Facts(3 * S * S, S, (C,), B, 10, mean=MEAN, std=STD)


def normalised(pixels):
    return (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def pixels(seed=0):
    return torch.rand(B, 3, S, S, generator=torch.Generator().manual_seed(seed))


def batch(view=None, targets=None, seed=0, multilabel=False):
    rows = torch.arange(B)
    targets = rows % C if targets is None else targets
    view = normalised(pixels()) if view is None else view
    generator = torch.Generator().manual_seed(seed)
    return Batch((view,), rows, targets, 0 * rows, {}, 0, 0.0, generator, multilabel)


def prepared(*parts, trunk=None, facts=FACTS):
    weight = np.random.default_rng(0).normal(size=(facts.features, C)).astype(np.float32)
    method = Tune((Scope(), *parts), weight, np.zeros(C, np.float32))
    return method, method.prepare(trunk or nn.Sequential(nn.Flatten(), nn.BatchNorm1d(facts.features)), facts).train()


def test_on_a_linear_model_each_pixel_moves_by_eps_levels():
    attack = Adversarial(eps=4, steps=1, random_start=False)
    _, model = prepared(attack)
    plain = batch()
    done = attack.inputs(model, plain)
    moved = (done.views[0] - plain.views[0]) * torch.tensor(STD).view(1, 3, 1, 1) * 255  # in levels
    inside = (pixels() > 5 / 255) & (pixels() < 250 / 255)
    towards = (model.head.weight[1] - model.head.weight[0]).view(3, S, S).sign()  # of class 1
    expected = 4 * towards * torch.where(plain.targets == 0, 1.0, -1.0).view(B, 1, 1, 1)
    torch.testing.assert_close(moved[inside], expected[inside], atol=1e-3, rtol=0)
    seen = done.views[0] * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
    assert seen.min() >= -1e-6
    assert seen.max() <= 1 + 1e-6


def test_steps_end_where_one_does_on_a_linear_model():
    kinds = [Adversarial(steps=1, random_start=False), Adversarial(steps=1), Adversarial(steps=5)]
    _, model = prepared(kinds[0])
    ends = [kind.inputs(model, batch()).views[0] for kind in (kinds[0], kinds[2])]
    torch.testing.assert_close(ends[0], ends[1], atol=1e-5, rtol=0)
    one = kinds[1].inputs(model, batch()).views[0]  # from anywhere within eps, a step of 1.25 eps
    level = (one - batch().views[0]).abs() * torch.tensor(STD).view(1, 3, 1, 1) * 255
    assert level.max() <= 4 + 1e-3


def test_the_model_is_asked_in_eval_mode_and_left_as_it_was():
    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.modes = []

        def forward(self, x):
            self.modes.append(self.training)
            return x

    trunk = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), Seen(), nn.Dropout(0.5))
    attack = Adversarial(steps=2)
    method, model = prepared(attack, trunk=trunk)
    trunk[3].eval()  # somebody wants it still
    modes = [module.training for module in model.modules()]
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    attack.inputs(model, batch())
    assert trunk[2].modes == [False, False]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    assert all(p.grad is None for p in model.parameters())
    method.loss(model, batch())
    assert trunk[2].modes[-1] is True
    with pytest.raises(ZeroDivisionError), evaluating(model):
        _ = 1 / 0
    assert [module.training for module in model.modules()] == modes


def test_what_is_learnt_from_costs_more():
    attack = Adversarial(steps=3)
    method, model = prepared(attack)
    plain, _ = prepared()
    model.eval()
    assert method.loss(model, batch())["task"] > plain.loss(model, batch())["task"] + 0.05


def test_a_share_is_attacked():
    attack = Adversarial(share=0.5)
    _, model = prepared(attack)
    plain = batch()
    changed = (attack.inputs(model, plain).views[0] != plain.views[0]).flatten(1).any(1)
    assert changed.sum() == 3
    others = {tuple((attack.inputs(model, one := batch(seed=s)).views[0] != one.views[0]).flatten(1).any(1).tolist())
              for s in range(8)}  # fmt: skip
    assert len(others) > 1
    untouched = Adversarial(share=0.0).inputs(model, plain)
    assert untouched is plain


def test_shares_and_labels_by_themselves_are_attacked_through_their_loss():
    several = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]).repeat(2, 1)
    for parts, one in (((), batch(targets=several, multilabel=True)), ((Mixup(alpha=1.0),), batch())):
        method, model = prepared(*parts, Adversarial(random_start=False))
        plain, _ = prepared(*parts)
        model.eval()
        worse = method.loss(model, one)["task"]
        fresh = Batch(**{**vars(one), "generator": torch.Generator().manual_seed(0)})
        assert worse > plain.loss(model, fresh)["task"] + 0.05


def test_cached_activations_cannot_be_attacked():
    attack = Adversarial()
    _, model = prepared(attack)
    for view in (torch.rand(B, 7), torch.rand(B, 24, 4, 4)):
        with pytest.raises(BadSetting, match=r"adversarial .*full or lp_ft instead of last_stages"):
            attack.inputs(model, batch(view))


def test_nothing_is_left_in_the_model():
    attack = Adversarial()
    method, model = prepared(attack)
    assert LIMITS in dict(model.named_buffers())
    method.finish(model)
    assert LIMITS not in dict(model.named_buffers())
    assert not hasattr(model, LIMITS)


def test_wrong_options_are_told_together():
    with pytest.raises(BadSetting, match=r"adversarial: eps=0 .*steps=0 .*step_size=-1 .*share=2 .*random_start=1"):
        Adversarial(eps=0, steps=0, step_size=-1, share=2, random_start=1)


def test_all_chance_comes_from_the_batch():
    attack = Adversarial(steps=1, eps=30, step_size=1)
    _, model = prepared(attack)
    before = torch.get_rng_state()
    runs = [attack.inputs(model, batch(seed=seed)).views[0] for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_it_makes_a_model_robust():
    """Handwritten digits of 8 x 8: under PGD-20 of 32 levels many more withstand, and hardly fewer are right."""
    from sklearn.datasets import load_digits

    X, y = (torch.from_numpy(np.asarray(part)) for part in load_digits(return_X_y=True))
    X = ((X.float() / 16 - 0.5) / 0.5).view(-1, 1, 8, 8).repeat(1, 3, 1, 1)
    half = (0.5, 0.5, 0.5)
    scores = []
    for parts in ((), (Adversarial(eps=32, steps=3),)):
        model = trained(parts, X[:1200], y[:1200], half)
        with torch.no_grad():
            right = (model(X[1200:1500]).logits.argmax(1) == y[1200:1500]).float().mean().item()
        draw = torch.Generator().manual_seed(0)
        stands = withstands(lambda x, m=model: m(x).logits, X[1200:1500], y[1200:1500], half, half, draw, 32)
        scores.append((right, stands.float().mean().item()))
    (plain, fragile), (careful, robust) = scores
    assert plain > 0.9
    assert careful > plain - 0.05
    assert robust > fragile + 0.15


def trained(parts, X, y, half, steps=100):
    torch.manual_seed(0)
    trunk = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
    )
    method = Tune((Scope(), *parts), np.zeros((512, 10), np.float32), np.zeros(10, np.float32))
    model = method.prepare(trunk, Facts(512, 8, (10,), len(X), steps, mean=half, std=half)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(steps):
        draw = torch.Generator().manual_seed(step)
        rows = torch.randperm(len(X), generator=draw)[:64]
        one = Batch((X[rows],), rows, y[rows], 0 * rows, {}, step, step / steps, draw)
        loss = sum(method.loss(model, one).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
