"""MixUp, CutMix, random erasing, views: against plain computations; what comes from where; one real effect."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from topwork.adaptation import Batch
from topwork.adaptation.augmentation._mixing import inside, shares, weights
from topwork.adaptation.augmentation.cutmix import Cutmix
from topwork.adaptation.augmentation.mixup import Mixup
from topwork.adaptation.augmentation.random_erasing import RandomErasing
from topwork.adaptation.augmentation.view import View
from topwork.adaptation.graft import Grafted, Scope, Tune, task_loss
from topwork.errors import BadSetting, UnknownName
from topwork.modalities.image_views import RECIPES

pytestmark = pytest.mark.usefixtures("one_thread")

B, C = 8, 3
MODEL = Grafted(nn.Flatten(), nn.Linear(4, C))


def batch(*views, targets=None, seed=0, multilabel=False, extras=None, count=B):
    targets = torch.arange(count) % C if targets is None else targets
    rows = torch.arange(count)
    generator = torch.Generator().manual_seed(seed)
    views = views or (images(count),)
    return Batch(views, rows, targets, torch.zeros_like(rows), extras or {}, 0, 0.0, generator, multilabel)


def images(count=B, side=16, channels=3):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(3))


def test_weights_are_beta_and_come_from_the_generator():
    for alpha in (0.2, 1.0, 3.0):
        keep = weights(alpha, 20_000, 1.0, torch.Generator().manual_seed(1))
        assert keep.mean() == pytest.approx(0.5, abs=0.01)
        assert keep.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.004)  # of Beta(alpha, alpha)
        assert keep.dtype == torch.float32
        assert ((keep >= 0) & (keep <= 1)).all()
    first, second = (weights(1.0, 5, 1.0, torch.Generator().manual_seed(s)) for s in (1, 2))
    assert not torch.equal(first, second)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(weights(1.0, 5, 1.0, generator), first)
    assert not torch.equal(weights(1.0, 5, 1.0, generator), first)  # the generator went on
    some = weights(1.0, 10_000, 0.3, torch.Generator().manual_seed(1))
    assert (some == 1).float().mean() == pytest.approx(0.7, abs=0.02)


def test_shares_of_classes_of_unknown_and_of_shares():
    found = shares(batch(targets=torch.tensor([2, 0, -1]), count=3), C)
    assert found.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert found.dtype == torch.float32
    several = torch.tensor([[True, False, True]])
    assert shares(batch(targets=several, count=1, multilabel=True), C).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("per", ["item", "batch"])
def test_mixup_by_hand(per):
    maps, vector, teacher = images(side=4, channels=5), torch.randn(B, 7), torch.randn(B, 2)
    plain = batch(maps, vector, extras={"teacher": teacher})
    done = Mixup(alpha=1.0, per=per).inputs(MODEL, plain)
    draw = torch.Generator().manual_seed(0)
    partner = torch.randperm(B, generator=draw).tolist()
    keep = weights(1.0, B if per == "item" else 1, 1.0, draw).tolist()
    keep = keep * (B // len(keep))
    for b, (j, lam) in enumerate(zip(partner, keep, strict=True)):
        for old, new in ((maps, done.views[0]), (vector, done.views[1]), (teacher, done.extras["teacher"])):
            torch.testing.assert_close(new[b], lam * old[b] + (1 - lam) * old[j])
        expected = torch.zeros(C)
        expected[b % C] += lam
        expected[j % C] += 1 - lam
        torch.testing.assert_close(done.targets[b], expected)
    assert torch.equal(done.rows, plain.rows)
    assert (done.targets.sum(1) - 1).abs().max() < 1e-6


def test_the_loss_of_a_mixture_is_the_mixture_of_losses():
    """As Zhang et al. write it: l CE(f(x), y_i) + (1 - l) CE(f(x), y_j)."""
    done = Mixup(alpha=1.0, per="batch").inputs(MODEL, plain := batch())
    draw = torch.Generator().manual_seed(0)
    partner, lam = torch.randperm(B, generator=draw), weights(1.0, 1, 1.0, draw).item()
    logits = torch.randn(B, C)
    ce = nn.functional.cross_entropy
    expected = lam * ce(logits, plain.targets) + (1 - lam) * ce(logits, plain.targets[partner])
    torch.testing.assert_close(task_loss(logits, done), expected)


def test_labels_by_themselves_are_mixed_likewise():
    several = (torch.arange(B * C).view(B, C) % 4 == 0).float()
    for technique in (Mixup(alpha=1.0), Cutmix()):
        done = technique.inputs(MODEL, batch(targets=several, multilabel=True))
        assert done.multilabel
        assert ((done.targets >= 0) & (done.targets <= 1)).all()
        assert ((done.targets > 0) & (done.targets < 1)).any()
        again = technique.inputs(MODEL, dataclasses.replace(done, generator=torch.Generator().manual_seed(5)))
        assert again.targets.shape == (B, C)  # one after the other


@pytest.mark.parametrize("per", ["item", "batch"])
def test_cutmix_puts_a_box_of_the_partner_and_shares_by_area(per):
    fine, coarse = images(side=32), images(side=8, channels=5)
    plain = batch(coarse, fine)
    done = Cutmix(per=per).inputs(MODEL, plain)
    partner = torch.randperm(B, generator=torch.Generator().manual_seed(0)).tolist()
    other = [b for b in range(B) if partner[b] != b]
    boxes = []
    for b in other:
        cut = (done.views[1][b] != fine[b]).any(0)  # (32, 32)
        assert torch.equal(done.views[1][b][:, cut], fine[partner[b]][:, cut])
        rows, columns = cut.any(1).nonzero()[:, 0], cut.any(0).nonzero()[:, 0]
        assert cut.sum() == len(rows) * len(columns)  # a full box
        kept = 1 - cut.float().mean().item()
        assert done.targets[b, b % C] == pytest.approx(kept if partner[b] % C != b % C else 1, abs=1e-6)
        low = (done.views[0][b] != coarse[b]).any(0)
        assert low.float().mean() == pytest.approx(1 - kept, abs=0.25)  # the same box, in a coarser map
        boxes.append(cut)
    alike = all(torch.equal(cut, boxes[0]) for cut in boxes)
    assert alike == (per == "batch")


def test_sizes_of_boxes():
    """Where the box is not cut at the rim its area is 1 - l; with alpha = 1 that is uniform."""
    edges = Cutmix()._boxes(4000, torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(0)
    keep = weights(1.0, 4000, 1.0, draw)
    width, height = edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1]
    whole = (edges > 0).all(1) & (edges < 1).all(1)
    torch.testing.assert_close((width * height)[whole], 1 - keep[whole], atol=1e-5, rtol=0)
    assert (width * height <= 1 - keep + 1e-5).all()
    masks = inside(edges, 64, 48).float().mean((1, 2, 3))
    assert (masks - width * height).abs().max() < 0.05
    none = Cutmix(share=0.0).inputs(MODEL, plain := batch())
    assert torch.equal(none.views[0], plain.views[0])
    assert torch.equal(none.targets, shares(plain, C))


@pytest.mark.parametrize(
    "view", [torch.rand(B, 7), torch.rand(B, 5, 1, 1), torch.rand(B, 9, 12), torch.rand(B, 4, 4, 9)]
)
def test_cutmix_needs_maps(view):
    with pytest.raises(BadSetting, match=r"cutmix: .*take mixup"):
        Cutmix().inputs(MODEL, batch(images(), view))


def test_cutmix_against_channels_last():
    plain = batch(images().contiguous(memory_format=torch.channels_last))
    done, usual = Cutmix().inputs(MODEL, plain), Cutmix().inputs(MODEL, batch())
    assert torch.equal(done.views[0], usual.views[0])
    assert done.views[0].is_contiguous(memory_format=torch.channels_last)


def test_random_erasing_hides_a_box_of_a_share_of_the_items():
    N, side = 600, 32
    plain = batch(images(N, side), count=N)
    done = RandomErasing(p=0.4, fill="mean").inputs(MODEL, plain)
    hidden = (done.views[0] == 0).all(1)  # (N, 32, 32)
    with_box = hidden.flatten(1).any(1)
    assert with_box.float().mean() == pytest.approx(0.4, abs=0.06)
    assert torch.equal(done.views[0][~with_box], plain.views[0][~with_box])
    area = hidden.flatten(1).float().mean(1)[with_box]
    assert area.max() <= 0.44
    assert area.mean() == pytest.approx((0.02 + 0.4) / 2, abs=0.03)
    for box in hidden[with_box][:40]:
        assert box.sum() == box.any(1).sum() * box.any(0).sum()
    assert torch.equal(done.targets, plain.targets)


def test_random_erasing_with_noise():
    plain = batch(torch.full((200, 3, 32, 32), 5.0), count=200)
    done = RandomErasing(p=1.0).inputs(MODEL, plain)
    noise = done.views[0][done.views[0] != 5.0]
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert (plain.views[0] == 5.0).all()  # what was given stays
    with pytest.raises(BadSetting, match=r"random_erasing .*full or lp_ft"):
        RandomErasing().inputs(MODEL, batch(images(channels=7)))


@pytest.mark.parametrize("technique", [Mixup(), Cutmix(), RandomErasing()])
def test_all_chance_comes_from_the_batch(technique):
    before = torch.get_rng_state()
    np.random.seed(1)
    runs = [technique.inputs(MODEL, batch(seed=seed)) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(runs[0].views[0], runs[1].views[0])
    assert torch.equal(runs[0].targets, runs[1].targets)
    assert not torch.equal(runs[0].views[0], runs[2].views[0])


def test_views_name_recipes():
    assert View("crop_upright").view == "crop_upright"
    assert View().view in RECIPES
    assert getattr(Mixup(), "view", None) is None
    with pytest.raises(UnknownName, match="Did you mean 'trivial'"):
        View("trivail")
    with pytest.raises(UnknownName, match="local"):
        View("local")  # half as large as what is predicted on
    with pytest.raises(BadSetting, match="name=3"):
        View(3)


def test_wrong_options_are_told_together():
    with pytest.raises(BadSetting, match=r"mixup: alpha=0 .*per='pair' .*share=2"):
        Mixup(alpha=0, per="pair", share=2)
    with pytest.raises(BadSetting, match=r"cutmix: alpha=-1"):
        Cutmix(alpha=-1)
    with pytest.raises(BadSetting, match=r"random_erasing: p=3 .*ratio=0.*fill='red' .*area=\(0.5, 0.1\)"):
        RandomErasing(p=3, area=(0.5, 0.1), ratio=0, fill="red")


def test_mixup_keeps_a_model_from_certainty_about_wrong_labels():
    """Few digits, a fifth of the labels wrong: the held-out log loss is lower with MixUp, in each of three runs."""
    from sklearn.datasets import load_digits

    X, y = (torch.from_numpy(np.asarray(part)) for part in load_digits(return_X_y=True))
    X = (X.float() / 8 - 1).view(-1, 1, 8, 8)
    gains = []
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(X), generator=draw)
        train, test = order[:200], order[200:]
        labels = torch.where(torch.rand(200, generator=draw) < 0.2, torch.randint(10, (200,), generator=draw), y[train])
        losses = [
            held_out(parts, X, y, train, labels, test, seed) for parts in ((Scope(),), (Scope(), Mixup(alpha=1.0)))
        ]
        gains.append(losses[0] - losses[1])
    assert min(gains) > 0.05


def held_out(parts, X, y, train, labels, test, seed):
    from topwork.adaptation import Facts

    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU())
    method = Tune(parts, np.zeros((128, 10), np.float32), np.zeros(10, np.float32))
    model = method.prepare(trunk, Facts(128, 8, (10,), 200, 150)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(150):
        draw = torch.Generator().manual_seed(1000 * seed + step)
        rows = torch.randperm(200, generator=draw)[:64]
        one = Batch((X[train[rows]],), rows, labels[rows], 0 * rows, {}, step, step / 150, draw)
        loss = sum(method.loss(model, one).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return nn.functional.cross_entropy(model.eval()(X[test]).logits, y[test]).item()
