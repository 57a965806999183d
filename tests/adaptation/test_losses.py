"""Every loss against the paper's formula, written out in numpy; classes and shares; what it does on a toy set."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from topwork.adaptation.graft import Answer
from topwork.adaptation.losses.class_balanced import ClassBalanced, weights
from topwork.adaptation.losses.cross_entropy import CrossEntropy
from topwork.adaptation.losses.focal import Focal
from topwork.adaptation.losses.huber import Huber
from topwork.adaptation.losses.logit_adjusted import LogitAdjusted
from topwork.adaptation.losses.mse import Mse
from topwork.errors import BadSetting

from ._tuned import CLASSES, FEATURES, SIDE, batch, changed, facts, step, tune

pytestmark = pytest.mark.usefixtures("one_thread")

COUNTS = (60, 9, 3)
DRAW = np.random.default_rng(0)
Z = DRAW.normal(0, 2, (10, CLASSES))
Y = DRAW.integers(0, CLASSES, 10)
SHARES = DRAW.dirichlet(np.ones(CLASSES), 10)
LABELS = DRAW.integers(0, 2, (10, CLASSES)).astype(float)


class Flat(nn.Module):
    """Two numbers of an image: features that nothing has to be learnt for."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x[:, 0, 0, :FEATURES] * self.scale


def told(technique, targets, multilabel=False, z=Z):
    """What a technique's loss is, by way of the model that remembers for it."""
    model = tune(technique).prepare(Flat(), facts(counts=COUNTS, multilabel=multilabel))
    y = torch.from_numpy(targets)
    b = changed(batch(), targets=y.float() if y.ndim == 2 else y, multilabel=multilabel)
    return technique.task(model, b, Answer(torch.zeros(10, FEATURES), torch.from_numpy(z).float())).item()


def softmax(z):
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def one_hot(y):
    return np.eye(CLASSES)[y]


def close(value):
    return pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("targets", [Y, SHARES])
def test_cross_entropy_smooths(targets):
    q = (0.9 * (one_hot(targets) if targets.ndim == 1 else targets)) + 0.1 / CLASSES
    assert told(CrossEntropy(smoothing=0.1), targets) == close(-(q * np.log(softmax(Z))).sum(1).mean())


def test_cross_entropy_of_several_labels():
    q, p = 0.8 * LABELS + 0.1, sigmoid(Z)
    expected = -(q * np.log(p) + (1 - q) * np.log(1 - p)).mean()
    assert told(CrossEntropy(smoothing=0.2), LABELS, multilabel=True) == close(expected)


@pytest.mark.parametrize("targets", [Y, SHARES])
def test_focal(targets):
    y, p = one_hot(targets) if targets.ndim == 1 else targets, softmax(Z)
    cost = -y * (1 - p) ** 1.5 * np.log(p)
    assert told(Focal(gamma=1.5), targets) == close(cost.sum(1).mean())
    w = sum(COUNTS) / (CLASSES * np.array(COUNTS))
    assert told(Focal(gamma=1.5, alpha="counts"), targets) == close((cost * w).sum(1).mean())
    assert told(Focal(gamma=0), targets) == close(-(y * np.log(p)).sum(1).mean())


def test_focal_of_several_labels():
    p = sigmoid(Z)
    p_true = np.where(LABELS == 1, p, 1 - p)
    a = np.where(LABELS == 1, 0.25, 0.75)
    expected = -(a * (1 - p_true) ** 2 * np.log(p_true)).mean()
    assert told(Focal(gamma=2.0, alpha=0.25), LABELS, multilabel=True) == close(expected)
    assert told(Focal(gamma=0.0), LABELS, multilabel=True) == close(-np.log(p_true).mean())


def test_focal_gradient_is_finite_where_the_model_is_sure():
    for gamma in (0.0, 0.5, 2.0):
        for multilabel in (False, True):
            technique = Focal(gamma=gamma)
            model = tune(technique).prepare(Flat(), facts(multilabel=multilabel))
            z = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]]).requires_grad_()
            y = torch.tensor([[1.0, 0.0, 0.0]] * 2) if multilabel else torch.tensor([0, 0])
            loss = technique.task(model, changed(batch(), targets=y, multilabel=multilabel), Answer(z, z))
            loss.backward()
            assert torch.isfinite(loss)
            assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("targets", [Y, SHARES])
def test_logit_adjusted(targets):
    y = one_hot(targets) if targets.ndim == 1 else targets
    pi = np.array(COUNTS) / sum(COUNTS)
    odds = np.exp(Z) * pi**1.5  # the paper's second form
    expected = -(y * np.log(odds / odds.sum(1, keepdims=True))).sum(1).mean()
    assert told(LogitAdjusted(tau=1.5), targets) == close(expected)
    assert told(LogitAdjusted(tau=0.0), targets) == close(told(CrossEntropy(smoothing=0.0), targets))


@pytest.mark.parametrize("targets", [Y, SHARES])
def test_class_balanced(targets):
    y = one_hot(targets) if targets.ndim == 1 else targets
    effective = [sum(0.9**i for i in range(n)) for n in COUNTS]  # 1 + beta + beta^2 + ...
    w = 1 / np.array(effective)
    w *= CLASSES / w.sum()
    assert told(ClassBalanced(beta=0.9), targets) == close(-(w * y * np.log(softmax(Z))).sum(1).mean())


def test_class_balanced_goes_from_none_to_inverse_frequency():
    n = torch.tensor(COUNTS, dtype=torch.float64)
    assert torch.allclose(weights(n, 0.0), torch.ones(CLASSES))
    inverse = (1 / n) / (1 / n).mean()
    assert torch.allclose(weights(n, 1 - 1e-9), inverse.float(), rtol=1e-4)


NUMBERS = DRAW.normal(0, 1.5, 10)


def told_of_numbers(technique, z=Z[:, :1], y=NUMBERS):
    model = tune(technique, classes=1).prepare(Flat(), facts(numeric=True, classes=(1,), counts=()))
    b = changed(batch(), targets=torch.from_numpy(y).float())
    assert b.numeric
    return technique.task(model, b, Answer(torch.zeros(len(y), FEATURES), torch.from_numpy(z).float())).item()


def test_mse_is_the_mean_of_the_squares():
    assert told_of_numbers(Mse()) == close(((Z[:, 0] - NUMBERS) ** 2).mean())


@pytest.mark.parametrize("delta", [0.1, 1.0, 3.0])
def test_huber_is_squared_near_and_absolute_far(delta):
    e = np.abs(Z[:, 0] - NUMBERS)
    assert (e > delta).any()
    assert told_of_numbers(Huber(delta)) == close(np.where(e <= delta, e**2 / 2, delta * (e - delta / 2)).mean())


def test_numbers_have_the_squared_error_where_nothing_is_said():
    for parts, expected in (((), ((Z[:, 0] - NUMBERS) ** 2).mean()), ((Huber(1e6),), None)):
        method = tune(*parts, classes=1)
        model = method.prepare(Flat(), facts(numeric=True, classes=(1,), counts=())).train()
        b = changed(batch(), targets=torch.from_numpy(NUMBERS[np.arange(12) % 10]).float())
        z = model(*b.views).logits[:, 0].detach().numpy()
        e = ((z - b.targets.numpy()) ** 2).mean()
        assert expected is None or method.loss(model, b)["task"].item() == close(e)
        assert expected is not None or method.loss(model, b)["task"].item() == close(e / 2)


def test_losses_of_classes_and_of_numbers_do_not_mix():
    of_classes = (CrossEntropy(), Focal(), LogitAdjusted(), ClassBalanced())
    for technique, numeric in ((Mse(), False), (Huber(), False), *((one, True) for one in of_classes)):
        name = "classes" if numeric else "numbers"
        with pytest.raises(BadSetting, match=f"is for {name}, and these targets are .* Leave it out"):
            tune(technique, classes=1 if numeric else CLASSES).prepare(Flat(), facts(numeric=numeric))
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadSetting, match="delta"):
            Huber(bad)


def test_huber_is_not_led_astray_by_a_few_wrong_numbers():
    """One number in ten is nonsense: the slope that is learnt, true value 1, with squares and without."""

    def learnt(technique):
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(200, 3, SIDE, SIDE, generator=draw)
        y = x[:, 0, 0, 0].clone()
        y[::10] = -8 * y[::10]
        method = tune(technique, classes=1)
        model = method.prepare(Flat(), facts(numeric=True, classes=(1,), counts=(), items=200)).train()
        for _ in range(300):
            step(method, model, batch(y, x), rate=0.1)
        x = torch.randn(500, 3, SIDE, SIDE, generator=draw)
        with torch.no_grad():
            z = model.eval()(x).logits[:, 0]
        return float((z * x[:, 0, 0, 0]).mean())

    squares, huber = learnt(Mse()), learnt(Huber(0.2))
    assert squares < 0.4
    assert huber > 0.85


def test_what_cannot_be_stops_before_the_training():
    for technique in (LogitAdjusted(), ClassBalanced()):
        with pytest.raises(BadSetting, match="several labels"):
            told(technique, LABELS, multilabel=True)
        with pytest.raises(BadSetting, match="nobody has counted"):
            tune(technique).prepare(Flat(), facts(counts=()))
    with pytest.raises(BadSetting, match=r'alpha="counts"'):
        told(Focal(alpha=0.25), Y)
    with pytest.raises(BadSetting, match=r"alpha=0\.25"):
        told(Focal(alpha="counts"), LABELS, multilabel=True)
    for bad in (
        lambda: Focal(gamma=-1), lambda: Focal(alpha=2.0), lambda: Focal(alpha="rare"), lambda: LogitAdjusted(tau=-1),
        lambda: ClassBalanced(beta=1.0), lambda: CrossEntropy(smoothing=1.5),
    ):  # fmt: skip
        with pytest.raises(BadSetting):
            bad()


# what they do: two classes that overlap, 19 to 1


def toy(n, seed):
    draw = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.full((m,), c) for c, m in enumerate(n)])
    x = torch.randn(len(y), 3, SIDE, SIDE, generator=draw)
    x[:, 0, 0, :CLASSES] += 1.5 * F.one_hot(y, CLASSES)
    return x, y


def recalls(technique):
    """Recall of each class on balanced items, after a training on imbalanced ones."""
    n = (300, 40, 15)
    x, y = toy(n, 1)
    method = tune(*technique)
    model = method.prepare(Flat(), facts(counts=n)).train()
    for _ in range(200):
        step(method, model, batch(y, x), rate=0.5)
    method.finish(model)
    assert set(dict(model.named_buffers())) == set()
    x, y = toy((600, 600, 600), 2)
    with torch.no_grad():
        guess = model.eval()(x).logits.argmax(1)
    return np.array([(guess[y == c] == c).float().mean().item() for c in range(CLASSES)])


def test_balanced_accuracy_rises_where_classes_are_told_apart_by_frequency():
    plain = recalls(())
    adjusted, balanced, focal = (recalls((t,)) for t in (LogitAdjusted(), ClassBalanced(0.999), Focal(2.0, "counts")))
    assert plain[2] < 0.5 < plain[0]
    for better in (adjusted, balanced, focal):
        assert better.mean() > plain.mean() + 0.05
        assert better[2] > plain[2] + 0.2
    assert np.ptp(adjusted) < np.ptp(plain) / 2


def test_focal_looks_at_what_is_hard():
    """The gradient of an item that is right by far shrinks much more than that of one that is wrong."""

    def slope(gamma, z):
        z = torch.tensor([[z, 0.0, 0.0]]).requires_grad_()
        technique = Focal(gamma=gamma)
        model = tune(technique).prepare(Flat(), facts())
        technique.task(model, changed(batch(), targets=torch.tensor([0])), Answer(z, z)).backward()
        return z.grad[0, 0].abs().item()

    easy, hard = slope(2.0, 5.0) / slope(0.0, 5.0), slope(2.0, -3.0) / slope(0.0, -3.0)
    assert easy < 0.01
    assert hard > 0.5
