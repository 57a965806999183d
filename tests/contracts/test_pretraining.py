"""Every file in adaptation/pretraining: one contract, whatever the method."""

import dataclasses

import numpy as np
import pytest
import torch

from topwork import plugins
from topwork.adaptation.feed import Feed, Setup
from topwork.adaptation.loop import train
from topwork.adaptation.plan import Plan
from topwork.adaptation.pretraining import ROOM
from topwork.adaptation.together import Together, width_of
from topwork.modalities.image_views import RECIPES

timm = pytest.importorskip("timm")
from topwork.backbones.trunk import TimmTrunk  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = plugins.names(ROOM)
NAMES = [name for name in ALL if plugins.find(ROOM, name).modality == "image"]  # those of texts: test_text_methods.py
N, S = 16, 32
X = np.random.default_rng(0).integers(0, 256, (N, S, S, 3), dtype=np.uint8)
TEACHER = np.random.default_rng(1).normal(size=(N, 7)).astype(np.float32)
FEED = Feed(lambda rows, _: X[rows], np.arange(N) % 3, S, classes=(3,), extras={"teacher": TEACHER})
PLAN = Plan(steps=2, batch=8, seed=1)


@pytest.fixture(params=NAMES)
def method(request):
    return plugins.find(ROOM, request.param)()


def trunk(method):
    torch.manual_seed(0)
    if type(method).__name__ == "Mae":  # hides patches: a transformer
        return TimmTrunk(timm.create_model("test_vit", img_size=S, num_classes=0))
    return TimmTrunk(timm.create_model("test_resnet", num_classes=0))


def prepared(method):
    return Together(trunk(method), [method], FEED, PLAN).train()


def batch(method, step=0):
    return next(FEED.batches([method], step, Setup(steps=step + 1, batch=8, seed=1)))[1][0]


def test_room_is_listed_and_frozen():
    assert set(NAMES) >= {"supervised", "multi_source", "distillation"}
    for name in NAMES:
        kind = plugins.find(ROOM, name)
        assert dataclasses.is_dataclass(kind)
        with pytest.raises(dataclasses.FrozenInstanceError):
            kind().anything = 1
        assert set(kind().views) <= set(RECIPES)
        assert isinstance(kind().needs_labels, bool)


def test_terms_are_finite_scalars_that_reach_the_trunk(method):
    whole = prepared(method)
    terms = whole(batch(method))
    assert terms
    assert all(value.shape == () and torch.isfinite(value) for value in terms.values())
    sum(terms.values()).backward()
    gradients = [p.grad for p in whole.models[0].trunk.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)
    assert max(float(g.abs().max()) for g in gradients) > 0


def test_all_chance_comes_from_the_batch(method):
    """The same batch gives the same bits whatever torch's own generator was; another step's generator may not."""
    losses = []
    for seed in (1, 2):
        whole = prepared(method)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        losses.append({name: value.item() for name, value in whole(batch(method)).items()})
        assert torch.equal(torch.get_rng_state(), before)
    assert losses[0] == losses[1]


def test_what_is_left_fits_the_network_that_began(method):
    begun = trunk(method)
    shapes = {name: value.shape for name, value in begun.state_dict().items()}
    left = train(begun, [method], FEED, PLAN)
    assert {name: value.shape for name, value in left.state_dict().items()} == shapes
    assert not left.training
    with torch.no_grad():
        assert torch.isfinite(left(torch.zeros(1, 3, S, S))).all()
    assert width_of(left, S) == width_of(trunk(method), S)


def test_nothing_is_remembered_outside_the_tensors(method):
    """A model that is made anew and given the tensors goes on as the old one would."""
    from topwork.nn.ema import tensors_of

    old = prepared(method)
    first = batch(method, 0)
    sum(old(first).values()).backward()
    with torch.no_grad():
        for p in old.parameters():
            if p.grad is not None:
                p -= 0.01 * p.grad
    old.after(first)
    torch.manual_seed(77)
    new = prepared(method)
    with torch.no_grad():
        for name, tensor in tensors_of(new).items():
            tensor.copy_(tensors_of(old)[name])
    told = [{name: value.item() for name, value in one(batch(method, 1)).items()} for one in (old, new)]
    assert told[0] == told[1]
