"""From random weights: nothing of the pretraining is left, the seed alone decides, and it learns."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from topwork.adaptation.tuning.scratch import Scratch, forget, reset

from ._tuned import Small, facts, trunk, tune

timm = pytest.importorskip("timm")
from topwork.backbones.architecture import Architecture  # noqa: E402
from topwork.backbones.trunk import build  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def spoilt(network):
    """Every parameter is a number that no start would draw; statistics as after a training."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.5)
        for buffer in network.buffers():
            buffer.fill_(3)
    return network


def named(name, library="timm"):
    return build(Architecture(library, name, {}), lambda network: None)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("known", [True, False])
def test_nothing_is_left_of_what_was_learnt(name, known):
    network = spoilt(named(name))
    if not known:
        del network.untrained
    kinds = {n: type(m) for n, m in network.named_modules()}
    before = torch.get_rng_state()
    forget(network, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert {n: type(m) for n, m in network.named_modules()} == kinds
    for name, parameter in network.named_parameters():
        assert torch.isfinite(parameter).all()
        assert not (parameter == 7.5).any(), name
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "num_batches_tracked")):
            assert not buffer.any(), name
        if name.endswith("running_var"):
            assert (buffer == 1).all()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_weights_are_those_that_the_authors_begin_with(name):
    network, authors = spoilt(named(name)), named(name)
    forget(network, seed=0)
    for (name, mine), (_, theirs) in zip(network.named_parameters(), authors.named_parameters(), strict=True):
        if theirs.numel() > 500:  # of the same distribution: the same spread
            assert mine.std().item() == pytest.approx(theirs.std().item(), rel=0.15), name
            assert not torch.equal(mine, theirs)
        elif not theirs.any() or (theirs == 1).all():
            assert torch.equal(mine, theirs), name


def test_the_seed_alone_decides():
    def begun(seed):
        torch.manual_seed(int(np.random.default_rng().integers(1 << 30)))
        network = spoilt(named("test_resnet"))
        forget(network, seed)
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(begun(0), begun(0))
    assert not torch.equal(begun(0), begun(1))


def test_tokens_scales_and_attention_of_networks_that_nobody_can_build_anew():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls_token, self.gamma = nn.Parameter(torch.ones(1, 1, 8)), nn.Parameter(torch.ones(8))
            self.beta = nn.Parameter(torch.ones(8))
            self.attention = nn.MultiheadAttention(8, 2)
            self.conv = nn.Conv2d(64, 128, 3)

    own = spoilt(Own())
    reset(own)
    assert not any((p == 7.5).any() for p in own.parameters())
    assert 0 < own.cls_token.std() < 0.05
    assert (own.gamma == 1).all()
    assert not own.beta.any()
    assert own.conv.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.05)  # He et al.: 2 / fan out


def test_as_a_step_it_begins_anew_and_all_of_it_learns():
    start = trunk()
    with torch.no_grad():
        for p in start.parameters():
            p.add_(3.0)
    method = tune(first=Scratch())
    model = method.prepare(copy.deepcopy(start), facts())
    again = tune(first=Scratch()).prepare(Small(), facts())
    for (name, p), q in zip(model.trunk.named_parameters(), again.trunk.parameters(), strict=True):
        assert p.requires_grad
        assert torch.equal(p, q), name  # whatever it was before
    assert Scratch().head == "new"
