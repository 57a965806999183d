"""What learns, what stands still, and what is left: LoRA, BitFit, adapters, gradual unfreezing."""

import copy

import numpy as np
import pytest
import torch
from torch import fx, nn

from topwork.adaptation import Batch, Facts
from topwork.adaptation.graft import Grafted, Tune, techniques
from topwork.adaptation.plan import Plan, optimizer_of
from topwork.adaptation.tuning.adapters import Adapter
from topwork.adaptation.tuning.gradual_unfreezing import GradualUnfreezing
from topwork.adaptation.tuning.lora import Lora, LowRank
from topwork.errors import BadSetting, UnknownName

timm = pytest.importorskip("timm")
from topwork.backbones.trunk import TimmTrunk, export  # noqa: E402
from topwork.nn.session import session  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

S, C = 32, 3
STAGES = tuple((f"network.layer{k}",) for k in (1, 2, 3, 4))


def resnet():
    torch.manual_seed(0)
    trunk = TimmTrunk(timm.create_model("test_resnet"))
    for module in trunk.modules():  # statistics and scales as after a pretraining: not 0 and 1
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return trunk.eval()


def vit():
    torch.manual_seed(0)
    return TimmTrunk(timm.create_model("test_vit", img_size=S)).eval()


def prepared(spec, trunk, stages=STAGES, steps=10):
    with torch.no_grad():
        D = trunk.eval()(torch.zeros(1, 3, S, S)).shape[1]
    draw = np.random.default_rng(0)
    weight = draw.normal(0, 0.1, (D, C)).astype(np.float32)
    method = Tune(techniques(spec), weight, np.zeros(C, np.float32), stages)
    return method, method.prepare(trunk, Facts(D, S, (C,), 8, steps)).train()


def images(n=8, seed=1):
    return torch.randn(n, 3, S, S, generator=torch.Generator().manual_seed(seed))


def batch(step=0, steps=10):
    rows = torch.arange(8)
    draw = torch.Generator().manual_seed(step)
    return Batch((images(seed=step),), rows, rows % C, torch.zeros_like(rows), {}, step, step / steps, draw)


def walk(method, model, steps=3, first=0):
    """Steps of AdamW, as the loop takes them."""
    optimizer = optimizer_of(model, Plan(steps=10, rate=0.01, weight_decay=0.1))
    for step in range(first, first + steps):
        sum(method.loss(model, batch(step)).values()).backward()
        optimizer.step()
        optimizer.zero_grad()


def tensors(model):
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def moved(model, before):
    return {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}


def learning(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


# --- LoRA


class Same(nn.Conv2d):
    """A convolution with a forward of its own, like timm's Conv2dSame."""

    def forward(self, x):
        return self._conv_forward(nn.functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias)


LAYERS = {
    "linear": (nn.Linear(12, 7), (5, 12)),
    "tokens": (nn.Linear(12, 7, bias=False), (5, 3, 12)),
    "3x3": (nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 9, 9)),
    "1x1": (nn.Conv2d(6, 8, 1), (2, 6, 5, 5)),
    "grouped": (nn.Conv2d(6, 9, 3, groups=3, dilation=2, padding="same"), (2, 6, 9, 9)),
    "reflected": (nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), (2, 6, 9, 9)),
    "own forward": (Same(6, 8, 2), (2, 6, 9, 9)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_low_rank_is_a_change_of_the_weight(kind):
    layer, shape = copy.deepcopy(LAYERS[kind])
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw)
    low = LowRank(layer, 3, 6.0, draw)
    assert torch.equal(low(x), layer(x))  # B begins at zero
    nn.init.normal_(low.B, generator=draw)
    plain = copy.deepcopy(layer)  # the paper's formula: W' = W + alpha / r B A
    with torch.no_grad():
        plain.weight += 6.0 / 3 * (low.B @ low.A).view_as(plain.weight)
    wanted, weight = plain(x), layer.weight
    assert (low(x) - layer(x)).abs().max() > 0.1
    torch.testing.assert_close(low(x), wanted, atol=1e-5, rtol=1e-5)
    merged = low.merged()
    assert merged is layer
    assert merged.weight is weight
    torch.testing.assert_close(merged(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("build", [resnet, vit])
def test_lora_learns_matrices_only_and_merges_into_the_layers_it_found(build):
    trunk = build()
    modules, names = dict(trunk.named_modules()), set(trunk.state_dict())
    start, outside = tensors(trunk), trunk(images())
    method, model = prepared("lora(4)", trunk, ())
    assert torch.equal(model.eval()(images()).features, outside)  # it begins as it was
    assert all(n.startswith("head.") or n.endswith((".A", ".B")) for n in learning(model))
    before = tensors(model.train())
    walk(method, model)
    assert moved(model, before) == learning(model)
    tuned = model.eval()(images()).logits
    assert method.finish(model) is model
    assert dict(trunk.named_modules()) == modules  # the same objects at the same places
    assert set(trunk.state_dict()) == names
    torch.testing.assert_close(model(images()).logits, tuned, atol=1e-5, rtol=1e-5)
    changed = moved(trunk, start)
    assert changed
    assert all(isinstance(modules[n.removesuffix(".weight")], (nn.Linear, nn.Conv2d)) for n in changed)


def test_lora_takes_targets_and_leaves_depthwise_convolutions():
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 1), nn.Flatten())
    assert set(Lora().chosen(trunk)) == {"0", "2"}
    assert set(Lora(targets="2").chosen(trunk)) == {"2"}
    assert set(Lora(targets=("^0$", "^2$")).chosen(trunk)) == {"0", "2"}
    with pytest.raises(UnknownName, match=r"No '1'.*depthwise"):
        Lora(targets="1").chosen(trunk)
    with pytest.raises(BadSetting, match="neither Linear"):
        Lora().chosen(nn.Sequential(nn.BatchNorm2d(3)))
    with pytest.raises(BadSetting, match=r"rank=0; alpha=-1; targets='\('"):
        Lora(0, alpha=-1, targets="(")


def test_lora_of_a_layer_with_two_names_and_of_one_whose_weight_is_taken():
    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(8, 8)
            self.two = self.one
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            x = self.two(self.one(x.mean((2, 3)).repeat(1, 3)[:, :8]))[:, None]
            return self.attention(x, x, x, need_weights=False)[0][:, 0]

    trunk = Trunk()
    method, model = prepared("lora(2)", trunk, ())
    assert trunk.one is trunk.two
    before = model.eval()(images()).features
    walk(method, model.train())
    assert trunk.attention.out_proj.B.abs().max() > 0  # a gradient came through its `weight`
    tuned = model.eval()(images()).features
    assert (tuned - before).abs().max() > 1e-3
    method.finish(model)
    assert type(trunk.one) is nn.Linear
    assert trunk.one is trunk.two
    torch.testing.assert_close(model(images()).features, tuned, atol=1e-5, rtol=1e-5)


def test_lora_in_a_graph_of_the_upper_part_merges_into_the_whole():
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = fx.Graph()
    x = graph.placeholder("x")
    for name in "234":
        x = graph.call_module(name, (x,))
    graph.output(x)
    above = fx.GraphModule(trunk, graph)
    model = Grafted(above, nn.Linear(6, 2))
    lora = Lora(2)
    lora.prepare(model, Facts(6, S, (2,), 8, 10))
    nn.init.normal_(above.get_submodule("2").B)
    x = torch.randn(2, 4, 5, 5)
    tuned = above(x)
    lora.finish(model)
    assert above.get_submodule("2") is trunk[2]
    torch.testing.assert_close(trunk[2:](x), tuned, atol=1e-5, rtol=1e-5)


# --- BitFit


@pytest.mark.parametrize("build", [resnet, vit])
def test_bitfit_moves_biases_and_the_head(build):
    method, model = prepared("bitfit(weight_decay=0.1)", build(), ())
    wanted = {n for n in model.state_dict() if n.endswith("bias")} | {"head.weight"}
    assert learning(model) == wanted
    before = tensors(model)
    walk(method, model)
    assert moved(model, before) == wanted  # and no batch statistics


def test_bitfit_needs_biases():
    with pytest.raises(BadSetting, match="no biases"):
        prepared("bitfit", nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()), ())


# --- adapters


@pytest.mark.parametrize("build", [resnet, vit])
def test_adapters_begin_as_identity_learn_and_stay(build):
    trunk = build()
    stages = STAGES if build is resnet else tuple((f"network.blocks.{k}",) for k in range(3))
    names, outside = set(trunk.state_dict()), trunk(images())
    method, model = prepared("adapters(8, scales=False)", trunk, stages)
    adapters = {name: m for name, m in model.named_modules() if isinstance(m, Adapter)}
    assert list(adapters) == [f"trunk.{stage[0]}.adapter" for stage in stages[: len(adapters)]]
    assert len(adapters) >= 2
    assert isinstance(next(iter(adapters.values())).down, nn.Conv2d if build is resnet else nn.Linear)
    assert torch.equal(model.eval()(images()).features, outside)
    before = tensors(model.train())
    walk(method, model)
    assert moved(model, before) == learning(model) == {n for n in before if ".adapter." in n or n.startswith("head.")}
    tuned = model.eval()(images())
    assert (tuned.features - outside).abs().max() > 1e-3
    method.finish(model)
    assert torch.equal(model(images()).logits, tuned.logits)
    assert names < set(trunk.state_dict())  # the trunk's own names are what they were
    _, adapter = next(iter(adapters.items()))  # the paper's formula
    h = torch.randn(2, adapter.down.weight.shape[1], *((4, 4) if build is resnet else ()))
    first = torch.einsum("mc,bc...->bm...", adapter.down.weight.flatten(1), h)
    wide = (-1, *[1] * (h.ndim - 2))
    first = nn.functional.gelu(first + adapter.down.bias.view(wide))
    wanted = h + torch.einsum("cm,bm...->bc...", adapter.up.weight.flatten(1), first) + adapter.up.bias.view(wide)
    torch.testing.assert_close(adapter(h), wanted, atol=1e-5, rtol=1e-5)


def test_adapters_of_a_copy_are_its_own():
    method, model = prepared("adapters(8)", resnet())
    walk(method, model)
    twin = copy.deepcopy(model.eval())
    assert torch.equal(twin(images()).logits, model(images()).logits)
    before = model(images()).logits
    with torch.no_grad():
        twin.trunk.get_submodule("network.layer1.adapter").up.bias.add_(1.0)
    assert torch.equal(model(images()).logits, before)
    assert not torch.equal(twin(images()).logits, before)


def test_adapters_let_scales_of_norms_learn():
    method, model = prepared("adapters(8)", resnet())
    norms = {f"trunk.{n}" for n, m in model.trunk.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert {n for n in learning(model) if n.rpartition(".")[0] in norms} == {
        f"{n}.{w}" for n in norms for w in ("weight", "bias")
    }
    rates = method.rates(model)
    assert rates["trunk.network.layer2.adapter.up.weight"] == 10
    assert rates["trunk.network.bn1.weight"] == rates["head.weight"] == 1


def test_adapters_need_stages_that_are_called():
    with pytest.raises(BadSetting, match="no stage"):
        prepared("adapters", resnet(), (("network",),))  # its forward is never called as a whole
    with pytest.raises(BadSetting, match="activation='no_such'"):
        techniques("adapters(activation='no_such')")


# --- gradual unfreezing


def test_schedule_by_hand():
    fresh = GradualUnfreezing(over=0.5, head="new")
    assert [fresh.free(d, 4) for d in (0, 0.12, 0.125, 0.25, 0.375, 0.49, 0.5, 0.9)] == [0, 0, 1, 2, 3, 3, 4, 4]
    solved = GradualUnfreezing(over=0.6)
    assert [solved.free(d, 4) for d in (0, 0.19, 0.2, 0.4, 0.59, 0.6, 0.9)] == [1, 1, 2, 3, 3, 4, 4]
    assert [GradualUnfreezing(over=1.0).free(i / 10, 1) for i in (0, 9)] == [1, 1]
    with pytest.raises(BadSetting, match="over=0"):
        GradualUnfreezing(over=0)
    with pytest.raises(BadSetting, match="cannot be told apart"):
        prepared("gradual_unfreezing", resnet(), (("network",),))


def test_rates_fall_by_stage():
    _, model = prepared("full", resnet())
    rates = GradualUnfreezing().rates(model)
    assert rates["trunk.network.layer4."] == 1
    assert rates["trunk.network.layer2."] == pytest.approx(2.6**-2)
    assert rates["trunk."] == pytest.approx(2.6**-3)  # the stem, which is in no stage
    assert rates["head."] == 1


def test_stages_are_freed_from_the_top_and_stand_still_until_then():
    method, model = prepared("gradual_unfreezing(over=0.8, head='new')", resnet())
    freed = []
    for step in (0, 2, 4, 6, 8):  # a stage more at each
        before = tensors(model)
        optimizer = optimizer_of(model, Plan(steps=10, rate=0.01, weight_decay=0.1))
        sum(method.loss(model, batch(step)).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        parts = {n.split(".")[2] if n.startswith("trunk") else "head" for n in moved(model, before)}
        freed.append(parts)
        still = [m for m in model.trunk.modules() if isinstance(m, nn.BatchNorm2d) and not m.weight.requires_grad]
        assert not any(m.training for m in still)
    head = {"head"}
    assert freed[:4] == [head, head | {"layer4"}, head | {"layer4", "layer3"}, head | {"layer4", "layer3", "layer2"}]
    assert freed[4] == head | {name.split(".")[1] for name in model.trunk.state_dict()}  # all, the stem too


def test_resume_gives_the_same_bits():
    straight_method, straight = prepared("gradual_unfreezing(over=0.8)", resnet())
    optimizer = optimizer_of(straight, Plan(steps=10, rate=0.01, weight_decay=0.1))
    for step in range(6):
        if step == 3:
            method, resumed = prepared("gradual_unfreezing(over=0.8)", resnet())  # a new process
            resumed.load_state_dict(straight.state_dict())
            again = optimizer_of(resumed, Plan(steps=10, rate=0.01, weight_decay=0.1))
            again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        sum(straight_method.loss(straight, batch(step)).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    for step in range(3, 6):
        sum(method.loss(resumed, batch(step)).values()).backward()
        again.step()
        again.zero_grad()
    assert not moved(resumed, tensors(straight))


# --- what is shipped


def test_what_is_left_can_be_exported():
    method, model = prepared("adapters(8) + mlp_head(16, dropout=0.2)", resnet())
    walk(method, model)
    method.finish(model)
    whole = nn.Sequential(model.trunk, model.neck).eval()
    graph = export(whole, S)
    features = session(graph).run(None, {"images": images().numpy()})[0]
    with torch.no_grad():
        wanted = model.eval()(images())
    np.testing.assert_allclose(features, wanted.features.numpy(), atol=1e-4, rtol=1e-4)
    logits = features @ model.head.weight.detach().numpy().T + model.head.bias.detach().numpy()
    np.testing.assert_allclose(logits, wanted.logits.numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", ["lora", "bitfit", "adapters", "gradual_unfreezing(over=0.1)"])
def test_a_task_is_learnt(spec):
    """Which third is bright: beyond what the frozen random features tell the fixed head, by each of them."""
    method, model = prepared(spec, resnet())
    x = images(24, seed=5)
    y = torch.arange(24) % C
    for i, k in enumerate(y.tolist()):
        x[i, :, :, 10 * k : 10 * k + 10] += 1.0
    optimizer = optimizer_of(model, Plan(steps=10, rate=0.01))
    zeros = torch.zeros_like(y)
    losses = []
    for step in range(8):
        given = Batch((x,), torch.arange(24), y, zeros, {}, step, 0.5, torch.Generator())
        loss = method.loss(model, given)["task"]
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]
