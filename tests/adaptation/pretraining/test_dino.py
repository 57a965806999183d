"""DINO: its cross-entropy one view after the other, its moving averages, its schedules, and who learns."""

import copy
import dataclasses
import math

import pytest
import torch

from topwork import plugins
from topwork.adaptation.pretraining.dino import Dino, cross_entropy
from topwork.errors import BadSetting

from ._effect import trunk_of
from ._small import Plain, batch, facts, half_precision, images, vit
from ._strokes import beats_random

SMALL = {"prototypes": 9, "hidden": 8, "bottleneck": 4}


def softmax(row, temperature):
    top = max(row)
    weights = [math.exp((x - top) / temperature) for x in row]
    return [w / sum(weights) for w in weights]


def by_hand(teacher, student, centre, t_teacher, t_student):
    """Equation 2 of the paper: logits of U global views and V views of every image, as lists."""
    terms = []
    for u, large in enumerate(teacher):
        for v, any_view in enumerate(student):
            if u == v:
                continue
            for said, guessed in zip(large, any_view, strict=True):
                p = softmax([x - c for x, c in zip(said, centre, strict=True)], t_teacher)
                q = softmax(guessed, t_student)
                terms.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    return sum(terms) / len(terms)


def made(**options):
    torch.manual_seed(0)
    trunk = trunk_of("test_resnet") if options.pop("conv", False) else Plain()
    method = Dino(**{**SMALL, "local": 0, "batch_norm": False, **options})
    model = method.prepare(trunk, facts(trunk, 4 if isinstance(trunk, Plain) else 32))
    return method, model.train()


def test_equals_the_papers_formula():
    method, model = made(frozen=0.0)
    with torch.no_grad():  # a student that has moved on, a centre that is not 0
        for p in [*model.trunk.parameters(), *model.head.parameters()]:
            p.add_(0.3 * torch.randn_like(p))
        model.centre.copy_(torch.randn(9) / 5)
    views = [images(5, 4, seed) for seed in (1, 2)]
    loss = method.loss(model, batch(*views, done=0.15))["cross_entropy"]
    teacher = [model.teach(view).double().tolist() for view in views]
    student = [model.student(view).double().tolist() for view in views]
    expected = by_hand(teacher, student, model.centre.tolist(), (0.04 + 0.07) / 2, 0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_small_crops_are_compared_with_both_large_ones():
    method, model = made(conv=True, local=3)
    model.eval()  # batch norms would look at all views together
    views = [images(4, 32, 1), images(4, 32, 2), *(images(4, 16, s) for s in (3, 4, 5))]
    loss = method.loss(model, batch(*views))["cross_entropy"]
    teacher = [model.teach(view).double().tolist() for view in views[:2]]
    student = [model.student(view).double().tolist() for view in views]
    assert loss.item() == pytest.approx(by_hand(teacher, student, [0.0] * 9, 0.04, 0.1), rel=1e-4)
    assert method.views == ("strong", "strong", "local", "local", "local")


def test_views_are_paired_by_hand():
    target = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # (U 2, B 1, K 2)
    guess = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]], [[0.1, 0.9]]]).log()  # (V 3, B 1, K 2)
    # u 0 with v 1, 2 asks for column 0; u 1 with v 0, 2 asks for column 1
    expected = -(math.log(0.25) + math.log(0.1) + math.log(0.5) + math.log(0.9)) / 4
    assert cross_entropy(target, guess).item() == pytest.approx(expected, rel=1e-6)


def test_equal_student_and_teacher_give_the_entropy():
    method, model = made(student_temperature=0.05, teacher_temperature=0.05, first_teacher_temperature=0.05)
    view = images(6, 4)
    loss = method.loss(model, batch(view, view))["cross_entropy"]
    entropies = []
    for row in model.teach(view).double().tolist():
        p = softmax(row, 0.05)
        entropies.append(-sum(x * math.log(x) for x in p))
    assert loss.item() == pytest.approx(sum(entropies) / 6, rel=1e-5)


def test_teacher_and_centre_are_moving_averages():
    method, model = made(momentum=0.75, centre_momentum=0.9)
    learner = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    teacher = {name: p.detach().double().clone() for name, p in model.teacher.named_parameters()}
    centre = torch.zeros(9, dtype=torch.float64)
    for step in range(4):
        b = batch(images(5, 4, 2 * step), images(5, 4, 2 * step + 1), step=step, done=step / 4)
        said = torch.cat([model.teach(view) for view in b.views]).double()
        learner.zero_grad()
        method.loss(model, b)["cross_entropy"].backward()
        learner.step()
        method.after(model, b)
        m = 1 - 0.25 * (math.cos(math.pi * step / 4) + 1) / 2
        for name, p in [*model.trunk.named_parameters(prefix="trunk"), *model.head.named_parameters(prefix="head")]:
            teacher[name] = m * teacher[name] + (1 - m) * p.detach().double()
        centre = 0.9 * centre + 0.1 * sum(said) / len(said)
    for name, p in model.teacher.named_parameters():
        torch.testing.assert_close(p.double(), teacher[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.centre.double(), centre, rtol=1e-5, atol=1e-6)
    assert centre.abs().max() > 0.01


def test_gradients_reach_the_student_and_never_the_teacher():
    method, model = made(frozen=0.1)
    before = copy.deepcopy(model.teacher.state_dict())
    method.loss(model, batch(images(5, 4, 1), images(5, 4, 2), done=0.5))["cross_entropy"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.trunk.parameters())
    assert model.head.weight.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.teacher.state_dict().items())
    model.zero_grad()
    method.loss(model, batch(images(5, 4, 1), images(5, 4, 2), done=0.05))["cross_entropy"].backward()
    assert model.head.weight.grad is None  # prototypes stand still at first
    assert all(p.grad.abs().sum() > 0 for p in model.trunk.parameters())


def test_schedules():
    method, model = made(warmup=0.3, momentum=0.99)
    assert [method.temperature(done) for done in (0, 0.15, 0.3, 0.9)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert [model.momentum(done) for done in (0, 0.5, 1)] == pytest.approx([0.99, 0.995, 1])
    assert Dino(warmup=0.0).temperature(0.0) == pytest.approx(0.07)


@pytest.mark.parametrize(("steps", "first"), [(1, 0.9), (100, 0.9), (1000, 0.99), (10**6, 0.996)])
def test_the_teacher_follows_within_a_tenth_of_the_training(steps, first):
    trunk = Plain()
    model = Dino(**SMALL, local=0).prepare(trunk, dataclasses.replace(facts(trunk, 4), steps=steps))
    assert model.momentum(0) == pytest.approx(first)


def test_checkpoints_hold_the_teacher_and_finish_gives_it():
    method, model = made()
    with torch.no_grad():
        for p in model.teacher.parameters():
            p.add_(1)
    model.centre.fill_(3)
    _, other = made()
    other.load_state_dict(model.state_dict())
    trunk = method.finish(other)
    view = images(3, 4)
    torch.testing.assert_close(trunk(view), model.teacher.trunk(view))
    assert not torch.allclose(trunk(view), model.trunk(view))
    assert other.centre.tolist() == [3.0] * 9
    assert all(p.requires_grad for p in trunk.parameters())  # it may be trained further
    assert not any(p.requires_grad for p in other.teacher.parameters())


def test_the_teacher_drops_nothing_out():
    trunk = torch.nn.Sequential(Plain(features=64), torch.nn.Dropout(0.5))
    model = Dino(**SMALL, local=0).prepare(trunk, facts(trunk, 4)).train()
    view = images(4, 4)
    assert torch.equal(model.teach(view), model.teach(view))
    assert not torch.equal(model.student(view), model.student(view))


def test_a_vit_takes_two_sizes_only_if_it_was_built_so():
    fixed, dynamic = vit(), vit(dynamic_img_size=True)
    with pytest.raises(BadSetting, match=r"dynamic_img_size=True.*local=0"):
        Dino(**SMALL, local=1).prepare(fixed, facts(fixed, 32))
    Dino(**SMALL, local=0).prepare(fixed, facts(fixed, 32))
    method = Dino(**SMALL, local=1)
    model = method.prepare(dynamic, facts(dynamic, 32)).train()
    loss = method.loss(model, batch(images(2, 32, 1), images(2, 32, 2), images(2, 16, 3)))["cross_entropy"]
    loss.backward()
    assert torch.isfinite(loss)
    assert dynamic.network.pos_embed.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "spec", ["dino(local=-1)", "dino(momentum=2)", "dino(student_temperature=0)", "dino(hidden='a')"]
)
def test_bad_options_stop_at_once(spec):
    with pytest.raises(BadSetting, match="dino: "):
        plugins.make("adaptation.pretraining", spec)


def test_all_problems_are_told_together():
    with pytest.raises(BadSetting, match=r"local=-1 .*; .*momentum=2 "):
        Dino(local=-1, momentum=2)


def test_half_precision():
    loss, gradient = half_precision(Dino(**SMALL, local=0), Plain(), 4, images(6, 4, 1), images(6, 4, 2))
    assert 0 < loss < 20
    assert 0 < gradient < math.inf


@pytest.mark.slow
def test_a_short_training_beats_random():
    """Sharper targets and a quicker centre than by default, as 100 steps are few: with the defaults -0.8 to +8.3."""
    sharp = "local=0, prototypes=256, centre_momentum=0.5, first_teacher_temperature=0.03, teacher_temperature=0.03"
    assert beats_random(f"dino({sharp})", steps=100).low > 0
