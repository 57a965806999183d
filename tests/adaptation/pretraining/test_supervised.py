import math

import numpy as np
import pytest
import torch
from torch import nn

from topwork.adaptation import Batch, Facts
from topwork.adaptation.pretraining.distillation import Distillation, angle_loss, distance_loss
from topwork.adaptation.pretraining.multi_source import MultiSource
from topwork.adaptation.pretraining.supervised import Supervised
from topwork.errors import BadSetting

from ._effect import SEEN, beats_random, textures

D, S = 5, 4


def batch(B, classes, seed=0, source=None, extras=None):
    g = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, min(classes), (B,), generator=g)
    targets[1] = -1
    source = torch.zeros(B, dtype=torch.int64) if source is None else source
    return Batch((torch.rand(B, 3, S, S, generator=g),), torch.arange(B), targets, source, extras or {}, 0, 0.0, g)


def trunk():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * S * S, D))


def plain_cross_entropy(z, y, smoothing):
    log_sum = math.log(sum(math.exp(v) for v in z))
    q = [(1 - smoothing) * (c == y) + smoothing / len(z) for c in range(len(z))]
    return -sum(q[c] * (z[c] - log_sum) for c in range(len(z)))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_supervised_against_a_plain_loop(smoothing):
    method, b = Supervised(smoothing), batch(7, (4,))
    model = method.prepare(trunk(), Facts(D, S, (4,), 7, 10))
    logits = model.head(model.trunk(b.views[0])).tolist()
    each = [plain_cross_entropy(z, y, smoothing) for z, y in zip(logits, b.targets.tolist(), strict=True) if y >= 0]
    assert method.loss(model, b)["cross_entropy"].item() == pytest.approx(sum(each) / len(each), rel=1e-5)


def test_supervised_without_any_label_in_a_batch_is_zero():
    method, b = Supervised(), batch(3, (4,))
    b.targets[:] = -1
    assert method.loss(method.prepare(trunk(), Facts(D, S, (4,), 7, 10)), b)["cross_entropy"].item() == 0


def test_supervised_wants_one_labelled_set():
    for classes in ((), (3, 4)):
        with pytest.raises(BadSetting, match="multi_source learns from several"):
            Supervised().prepare(trunk(), Facts(D, S, classes, 7, 10))
    with pytest.raises(BadSetting, match=r"smoothing=1.5 is not a number from 0 to 1"):
        Supervised(1.5)


def test_multi_source_against_a_plain_loop():
    method, source = MultiSource(smoothing=0.1), torch.tensor([0, 0, 2, 0, 2, 0, 2])
    b = batch(7, (3, 5, 4), source=source)
    model = method.prepare(trunk(), Facts(D, S, (3, 5, 4), 7, 10))
    z = model.trunk(b.views[0])
    expected, labelled = [0.0, 0.0, 0.0], 0
    for i in range(7):
        if b.targets[i] >= 0:
            labelled += 1
            logits = model.heads[int(source[i])](z[i]).tolist()
            expected[int(source[i])] += plain_cross_entropy(logits, int(b.targets[i]), 0.1)
    terms = method.loss(model, b)
    assert [terms[f"source{s}"].item() for s in range(3)] == pytest.approx([e / labelled for e in expected], rel=1e-5)
    sum(terms.values()).backward()
    assert model.heads[1].weight.grad.abs().max() == 0  # nobody asked it, and still it has a gradient
    assert model.heads[2].weight.grad.abs().max() > 0


def test_multi_source_draws_by_temperature():
    assert MultiSource(temperature=1.0).shares((90, 10)) == pytest.approx((0.9, 0.1))
    assert MultiSource(temperature=2.0).shares((900, 100)) == pytest.approx((0.75, 0.25))
    assert MultiSource(temperature=1e9).shares((900, 100)) == pytest.approx((0.5, 0.5))
    with pytest.raises(BadSetting, match="temperature=0 is not a number above 0"):
        MultiSource(temperature=0)


def test_distillation_against_plain_loops():
    B, E = 6, 3
    f = torch.randn(B, E, generator=torch.Generator().manual_seed(1))
    b = batch(B, (2,), extras={"teacher": f})
    mean, std = np.array([0.1, -0.2, 0.3], np.float32), np.array([0.5, 1.0, 0.0], np.float32)
    method = Distillation(teacher="bundled", feature=0.5, distance=3.0, angle=2.0)
    model = method.prepare(trunk(), Facts(D, S, (), 9, 10, {"teacher": (E,)}, 0, {"teacher": (mean, std)}))
    z = model.trunk(b.views[0]).detach()
    projected = model.project(z).tolist()
    unit = [std[d] + 0.01 * std.mean() for d in range(E)]
    feature = np.mean(
        [(projected[i][d] - (f[i, d].item() - mean[d]) / unit[d]) ** 2 for i in range(B) for d in range(E)]
    )
    terms = method.loss(model, b)
    assert terms["feature"].item() == pytest.approx(0.5 * feature, rel=1e-4)
    assert terms["distance"].item() == pytest.approx(3 * plain_distance(z.numpy(), f.numpy()), rel=1e-4)
    assert terms["angle"].item() == pytest.approx(2 * plain_angle(z.numpy(), f.numpy()), rel=1e-4)


def huber(x):
    return 0.5 * x * x if abs(x) <= 1 else abs(x) - 0.5


def plain_distance(z, f):
    pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
    ours, theirs = ([np.linalg.norm(x[i] - x[j]) for i, j in pairs] for x in (z, f))
    return np.mean([huber(a / np.mean(ours) - b / np.mean(theirs)) for a, b in zip(ours, theirs, strict=True)])


def plain_angle(z, f):
    def cosine(x, i, j, k):
        a, b = x[i] - x[j], x[k] - x[j]
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    n = range(len(z))
    triples = [(i, j, k) for i in n for j in n for k in n if len({i, j, k}) == 3]
    return np.mean([huber(cosine(z, *t) - cosine(f, *t)) for t in triples])


def test_relations_do_not_care_about_scale_place_or_turn():
    g = torch.Generator().manual_seed(0)
    f = torch.randn(8, 4, generator=g)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=g))[0]
    z = 7 * f @ turn + 3
    assert distance_loss(z, f).item() == pytest.approx(0, abs=1e-9)
    assert angle_loss(z, f).item() == pytest.approx(0, abs=1e-9)
    bent = torch.cat([z[:1] + 20, z[1:]])
    assert distance_loss(bent, f).item() > 0.01
    assert angle_loss(bent, f).item() > 0.01


def test_relations_of_equal_points_stay_finite():
    z = torch.ones(4, 3, requires_grad=True)
    loss = distance_loss(z, torch.randn(4, 2)) + angle_loss(z, torch.randn(4, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
    assert distance_loss(z[:1], z[:1]).item() == 0
    assert angle_loss(z[:2], z[:2]).item() == 0


def test_distillation_options():
    assert Distillation(teacher="local:x").extras == {"teacher": "local:x"}
    with pytest.raises(BadSetting, match="all weights are 0"):
        Distillation(feature=0, distance=0, angle=0)
    with pytest.raises(BadSetting, match="angle=-1 is not a number above"):
        Distillation(angle=-1)


def test_supervised_pays_on_textures_it_has_not_seen():
    assert beats_random("supervised").low > 0


@pytest.mark.slow
def test_multi_source_pays_on_textures_it_has_not_seen():
    assert beats_random("multi_source", source=np.arange(800) // 600).low > 0


@pytest.mark.slow
def test_distillation_pays_on_textures_it_has_not_seen():
    """The teacher: how much of a picture's power lies in each of 4 x 4 bands of frequencies."""
    grey = textures(SEEN, 800, 32, 0)[0].mean(3)
    power = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True)))[:, :16, :16] ** 2
    bands = np.log(power.reshape(800, 4, 4, 4, 4).mean((2, 4)).reshape(800, 16)).astype(np.float32)
    assert beats_random("distillation", extras={"teacher": bands}).low > 0
