"""A trunk with a new top: what stands still, whose rate, whose loss."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Grafted, Scope, Tune, is_tuning, longest, techniques
from topwork.errors import BadSetting, UnknownName


def trunk():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def batch(targets, multilabel=False):
    images = torch.randn(len(targets), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(len(targets))
    return Batch((images,), rows, targets, torch.zeros_like(rows), {}, 0, 0.0, torch.Generator(), multilabel)


FACTS = Facts(4, 8, (2,), 6, 10)


def tune(*parts, classes=2):
    return Tune(parts or (Scope(),), np.zeros((4, classes), np.float32), np.zeros(classes, np.float32))


def test_what_does_not_learn_stands_still():
    model = Grafted(trunk(), nn.Linear(4, 2))
    model.trunk.requires_grad_(False)
    model.train()
    assert not any(m.training for m in model.trunk.modules())  # dropout has no parameters of its own
    assert model.head.training
    before = model.trunk[1].running_mean.clone()
    model(batch(torch.zeros(6, dtype=torch.int64)).views[0])
    assert torch.equal(before, model.trunk[1].running_mean)
    model.trunk.requires_grad_(True)
    model.still = {model.trunk[1]}
    model.train()
    assert [m.training for m in model.trunk] == [True, False, True, True, True]
    assert not any(m.training for m in model.eval().modules())


def test_terms_are_the_task_and_what_techniques_add():
    class More(Technique):
        def loss(self, model, batch, answer):
            return {"more": answer.features.square().mean()}

    method = tune(Scope(), More())
    model = method.prepare(trunk(), FACTS).eval()
    b = batch(torch.tensor([0, 1, 0, 1, 1, 0]))
    terms = method.loss(model, b)
    logits = model(*b.views).logits
    assert set(terms) == {"task", "more"}
    assert torch.allclose(terms["task"], nn.functional.cross_entropy(logits, b.targets))


def test_several_labels_are_asked_one_by_one():
    method = tune()
    model = method.prepare(trunk(), FACTS).eval()
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    loss = method.loss(model, batch(targets, multilabel=True))["task"]
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)  # a head of zeros says one half


def test_rates_multiply_and_the_longest_beginning_counts():
    class Slow(Technique):
        def rates(self, model):
            return {"": 0.5, "trunk.0.": 0.1}

    model = tune().prepare(trunk(), FACTS)
    rates = tune(Scope(head_rate=10.0), Slow()).rates(model)
    assert rates["head.weight"] == pytest.approx(5.0)
    assert rates["trunk.0.weight"] == pytest.approx(0.1)
    assert rates["trunk.1.weight"] == pytest.approx(0.5)
    assert longest({"a": 2.0, "ab": 3.0}, "abc") == 3.0
    assert longest({}, "abc") == 1.0


def test_specs():
    assert is_tuning("last_stages(1)")
    assert is_tuning("full+l2_sp")
    assert not is_tuning("probe")
    with pytest.raises(UnknownName, match="no_such"):
        techniques("full + no_such")
    with pytest.raises(BadSetting, match="epochs=0"):
        techniques("full(epochs=0)")
    made = techniques("last_stages(share=0.25, epochs=3)")
    assert dataclasses.asdict(made[0])["share"] == 0.25
