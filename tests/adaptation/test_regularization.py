"""Every formula against a second, plainer computation; and what it does to a training."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from topwork.adaptation import Technique
from topwork.adaptation.graft import techniques
from topwork.adaptation.regularization import delta as delta_file
from topwork.adaptation.regularization.bss import Bss, smallest
from topwork.adaptation.regularization.co_tuning import CoTuning
from topwork.adaptation.regularization.delta import Delta
from topwork.adaptation.regularization.dropout import Dropout
from topwork.adaptation.regularization.l2_sp import L2Sp
from topwork.adaptation.regularization.lwf import Lwf
from topwork.adaptation.regularization.stochnorm import Stochnorm, Switch
from topwork.adaptation.tuning.full import Full
from topwork.errors import BadSetting

from ._tuned import CLASSES, FEATURES, SOURCES, STAGES, batch, changed, facts, images, step, trunk, tune

pytestmark = pytest.mark.usefixtures("one_thread")


def prepared(*parts, first=None, **known):
    method = tune(*parts, first=first)
    return method, method.prepare(trunk(), facts(**known)).train()


# l2_sp


def test_l2_sp_is_the_distance_from_the_start():
    method, model = prepared(L2Sp(alpha=0.3, beta=0.07))
    began = {name: p.detach().clone() for name, p in trunk().named_parameters()}
    assert method.loss(model, batch())["l2_sp"].item() == 0
    step(method, model, batch())
    terms = method.loss(model, batch())
    away = sum(((p - began[name]) ** 2).sum().item() for name, p in model.trunk.named_parameters())
    new = sum((p**2).sum().item() for p in model.head.parameters())
    assert terms["l2_sp"].item() == pytest.approx(0.3 / 2 * away, rel=1e-5)
    assert terms["l2_head"].item() == pytest.approx(0.07 / 2 * new, rel=1e-5)


def test_l2_sp_keeps_a_training_near_its_start():
    def distance(*parts):
        method, model = prepared(*parts)
        began = trunk()
        for i in range(30):
            step(method, model, batch(step=i))
        return sum(
            ((p - q) ** 2).sum().item() for p, q in zip(model.trunk.parameters(), began.parameters(), strict=True)
        )

    free, held, tight = distance(), distance(L2Sp(alpha=0.5, beta=0)), distance(L2Sp(alpha=5.0, beta=0))
    assert tight < 0.6 * held < 0.6**2 * free


def test_l2_sp_remembers_only_what_learns():
    class Top(Full):
        def prepare(self, model, facts):
            super().prepare(model, facts)
            model.trunk.stem.requires_grad_(False)

    _, model = prepared(L2Sp(), first=Top())
    assert len(list(model.l2_sp.buffers())) == len(list(model.trunk.block.parameters()))

    class Nothing(Full):
        def prepare(self, model, facts):
            model.trunk.requires_grad_(False)

    with pytest.raises(BadSetting, match="nothing of the trunk learns"):
        prepared(L2Sp(), first=Nothing())


def test_layers_are_changed_before_they_are_remembered():
    made = techniques("full + l2_sp + bss + mlp_head(4)")
    assert [type(part).__name__ for part in made] == ["Full", "MlpHead", "L2Sp", "Bss"]


def test_named_twice_is_an_error():
    with pytest.raises(BadSetting, match="named twice"):
        prepared(L2Sp(), L2Sp())


# bss


def test_bss_is_the_sum_of_the_smallest_eigenvalues():
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    for k in (1, 2, 4):
        eigenvalues = np.sort(np.linalg.eigvalsh((x.T @ x).detach().numpy()))
        assert smallest(x, k).item() == pytest.approx(eigenvalues[:k].sum(), rel=1e-5)
    method, model = prepared(Bss(eta=0.01, k=2))
    answer = model(*batch().views)
    sigma = np.linalg.svd(answer.features.detach().numpy(), compute_uv=False)
    found = Bss(eta=0.01, k=2).loss(model, batch(), answer)["bss"].item()
    assert found == pytest.approx(0.01 * float((sigma[-2:] ** 2).sum()), rel=1e-3)
    assert "bss" in method.loss(model, batch())


def test_bss_gradient_is_finite_and_right():
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    h, direction = 1e-2, torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    live = x.clone().requires_grad_()
    smallest(live, 2).backward()
    slope = (smallest(x + h * direction, 2) - smallest(x - h * direction, 2)) / (2 * h)
    assert float((live.grad * direction).sum()) == pytest.approx(float(slope), rel=1e-2)
    for equal in (torch.eye(4), torch.ones(4, 4), torch.zeros(3, 5)):
        live = equal.clone().requires_grad_()
        smallest(live, 2).backward()
        assert torch.isfinite(live.grad).all()
    one = torch.randn(1, 4).requires_grad_()
    assert smallest(one, 3).item() == 0  # the only singular value there is stays


def test_bss_shrinks_what_is_small():
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(4)).requires_grad_()
    before = torch.linalg.svdvals(x.detach())
    for _ in range(50):
        (g,) = torch.autograd.grad(smallest(x, 1), x)
        x = (x - 0.05 * g).detach().requires_grad_()
    after = torch.linalg.svdvals(x.detach())
    assert after[-1] < 0.01 * before[-1]
    assert torch.allclose(after[:-1], before[:-1], atol=1e-4)


# dropout


def test_dropout_thins_out_what_the_head_reads_and_nothing_else():
    method, model = prepared(Dropout(p=0.25))
    b = method.parts[1].inputs(model, batch())
    answer = model(*b.views)
    whole = F.linear(answer.features, model.head.weight, model.head.bias)
    assert not torch.allclose(answer.logits, whole)
    assert torch.equal(model(*b.views).logits, answer.logits)  # one mask per step
    with torch.no_grad():
        model.eval()
        still = model(*b.views)
        assert torch.allclose(still.logits, F.linear(still.features, model.head.weight, model.head.bias))
        model.train()
        means = []
        for seed in range(400):
            method.parts[1].inputs(model, batch(seed=seed))
            means.append(model.head(answer.features))
    spread = torch.stack(means).std(0) / math.sqrt(400)
    assert ((torch.stack(means).mean(0) - whole).abs() < 5 * spread + 1e-6).all()  # right on average
    model.dropout.before(model.head, (torch.ones(1000, 50),))
    share = (model.dropout.before(model.head, (torch.ones(1000, 50),))[0] == 0).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.01)
    method.finish(model)
    after = model.train()(*b.views)
    assert torch.allclose(after.logits, F.linear(after.features, model.head.weight, model.head.bias))


# stochnorm


def plain(x, norm, mean, var):
    shape = (1, -1, 1, 1)
    scaled = (x - mean.view(shape)) / (var.view(shape) + norm.eps).sqrt()
    return scaled * norm.weight.view(shape) + norm.bias.view(shape)


def test_stochnorm_at_0_is_batch_norm_and_at_1_uses_moving_statistics():
    b = batch()
    for p, mode in ((0.0, "train"), (1.0, "eval")):
        method, model = prepared(Stochnorm(p=p))
        _, other = prepared()
        b = method.parts[1].inputs(model, b)
        stem, same = model.trunk.stem, getattr(other.trunk.stem, mode)()
        assert torch.allclose(stem(b.views[0]), same(b.views[0]), atol=1e-6)
        if mode == "eval":
            other.trunk.stem.train()(b.views[0])  # the moving statistics follow all the same
        assert torch.equal(stem.norm.running_mean, other.trunk.stem.norm.running_mean)
        assert torch.equal(stem.norm.running_var, other.trunk.stem.norm.running_var)
        assert stem.norm.num_batches_tracked == other.trunk.stem.norm.num_batches_tracked


def test_stochnorm_chooses_a_branch_per_channel():
    method, model = prepared(Stochnorm(p=0.5))
    norm, x = model.trunk.block.norm, torch.randn(5, FEATURES, 4, 4) * 3 + 1
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    method.parts[1].inputs(model, batch(seed=1))
    out = norm(x)
    moving = plain(x, norm, mean, var)
    fresh = plain(x, norm, x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0))
    chosen = model.stochnorm.all[1].moving
    assert 0 < chosen.sum() < FEATURES
    for c in range(FEATURES):
        assert torch.allclose(out[:, c], (moving if chosen[c] else fresh)[:, c], atol=1e-5)
    out.sum().backward()  # the update in place does not disturb the gradient
    assert torch.isfinite(norm.weight.grad).all()
    masks = []
    for seed in range(200):
        method.parts[1].inputs(model, batch(seed=seed))
        masks.append(model.stochnorm.all[1].moving)
    assert torch.stack(masks).float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_stochnorm_keeps_names_and_objects_and_leaves_no_trace():
    method = tune(Stochnorm())
    small = trunk()
    names, norm = list(small.state_dict()), small.block.norm
    model = method.prepare(small, facts()).train()
    assert [n for n, _ in model.trunk.named_parameters()] == [n for n, _ in trunk().named_parameters()]
    step(method, model, batch())
    method.finish(model)
    assert list(model.trunk.state_dict()) == names
    assert model.trunk.block.norm is norm
    assert not norm._forward_hooks
    assert not norm._forward_pre_hooks
    x = images()
    assert torch.equal(copy.deepcopy(model).train()(x).logits, copy.deepcopy(model).train()(x).logits)


class Activated(nn.BatchNorm2d):
    """As timm has them."""

    def forward(self, x):
        return super().forward(x).relu_()


def test_stochnorm_keeps_the_activation_that_comes_with_a_norm():
    norm = Activated(4).train()
    switch = Switch(norm)
    switch.moving = torch.tensor([True, False, True, False])
    x = torch.randn(6, 4, 3, 3).requires_grad_()
    out, fresh, still = norm(x), Activated(4).train()(x), Activated(4).eval()(x)
    assert (out >= 0).all()
    assert torch.allclose(out[:, ::2], still[:, ::2])
    assert torch.allclose(out[:, 1::2], fresh[:, 1::2])
    out.square().sum().backward()
    assert x.grad is not None


def test_stochnorm_wants_a_norm_that_is_trained():
    with pytest.raises(BadSetting, match="no batch norm is trained"):
        prepared(Stochnorm(), first=Full(norms="frozen"))


# lwf, co_tuning


def source_logits(network, weight_and_bias, x):
    weight, bias = (torch.from_numpy(a) for a in weight_and_bias)
    return network(x) @ weight + bias


def test_lwf_distils_the_answers_of_the_start():
    known = facts().source_head
    method, model = prepared(Lwf(weight=0.7, temperature=2.0))
    for i in range(3):
        step(method, model, batch(step=i))
    b = batch(step=9)
    answer = model(*b.views)
    with torch.no_grad():
        old = (source_logits(trunk(), known, b.views[0]) / 2).exp()
        old = old / old.sum(1, keepdim=True)
        now = answer.features @ model.lwf.learns.weight.T + model.lwf.learns.bias
        log_now = now / 2 - (now / 2).exp().sum(1, keepdim=True).log()
    found = method.parts[1].loss(model, b, answer)["lwf"].item()
    assert found == pytest.approx(0.7 * float(-(old * log_now).sum(1).mean()), rel=1e-5)
    assert torch.allclose(model.lwf.began.weight.T, torch.from_numpy(known[0]))  # the old one has not learnt
    assert not torch.allclose(model.lwf.learns.weight.T, torch.from_numpy(known[0]))
    assert not any(p.requires_grad or m.training for m in model.start.modules() for p in m.parameters())


def test_lwf_forgets_less():
    def drift(*parts):
        method, model = prepared(*parts)
        for i in range(40):
            step(method, model, batch(step=i), rate=0.1)
        with torch.no_grad():
            x, head = images(64, seed=99), facts().source_head
            then, now = (source_logits(network.eval(), head, x).softmax(1) for network in (trunk(), model.trunk))
            return float((then - now).abs().sum(1).mean())

    assert drift(Lwf(weight=5.0)) < 0.7 * drift()


def test_co_tuning_learns_the_relation_and_teaches_by_it():
    known = facts().source_head
    method, model = prepared(CoTuning(weight=2.0))
    seen, said = [0] * CLASSES, np.zeros((CLASSES, SOURCES))
    for i in range(3):  # an epoch is 12 items: the first batch
        b = batch(step=i)
        if i == 0:
            with torch.no_grad():
                p = source_logits(trunk(), known, b.views[0]).softmax(1).numpy()
            for row, y in zip(p, b.targets.tolist(), strict=True):
                seen[y] += 1
                said[y] += row
        step(method, model, b)
    relation = said / np.array(seen)[:, None]
    assert np.allclose(model.co_tuning.rows().numpy(), relation, atol=1e-5)
    b = batch(step=9)
    answer = model(*b.views)
    with torch.no_grad():
        log_now = model.co_tuning.head.learns(answer.features).log_softmax(1).numpy()
    found = method.parts[1].loss(model, b, answer)["co_tuning"].item()
    expected = -np.mean([relation[y] @ row for y, row in zip(b.targets.tolist(), log_now, strict=True)])
    assert found == pytest.approx(2.0 * expected, rel=1e-5)
    mixed = changed(b, targets=F.one_hot(b.targets, CLASSES).float())
    assert method.parts[1].loss(model, mixed, answer)["co_tuning"].item() == pytest.approx(found, rel=1e-5)


def test_what_needs_the_source_classifier_says_so():
    for technique, name in ((Lwf(), "lwf"), (CoTuning(), "co_tuning")):
        with pytest.raises(BadSetting, match=f"{name} needs the classifier"):
            prepared(technique, source_head=None)
        wrong = np.zeros((FEATURES + 1, SOURCES), "f"), np.zeros(SOURCES, "f")
        with pytest.raises(BadSetting, match="reads its 7 features"):
            prepared(technique, source_head=wrong)
    with pytest.raises(BadSetting, match="one class of an item"):
        prepared(CoTuning(), multilabel=True)


# delta


def maps_of(network, x):
    """After the stem and after the block; the pool's only place does not count beside them."""
    first = network.stem(x)
    second = network.block(first)
    return [first, second, network.pool(second)[:, :, None, None]]


def test_delta_is_the_distance_of_the_maps():
    method, model = prepared(Delta(alpha=0.5, beta=0.02))
    for i in range(3):
        step(method, model, batch(step=i))
    b = batch(step=9)
    twin = copy.deepcopy(model.trunk)
    found = method.loss(model, b)
    expected = 0.0
    with torch.no_grad():
        for new, old in zip(maps_of(twin.train(), b.views[0]), maps_of(trunk(), b.views[0]), strict=True):
            gap = sum(((new[i, c] - old[i, c]) ** 2).sum().item() for i in range(12) for c in range(new.shape[1]))
            expected += gap / (old**2).sum().item()
    assert found["delta"].item() == pytest.approx(0.5 * expected, rel=1e-4)
    assert found["delta_head"].item() == pytest.approx(0.01 * sum((p**2).sum().item() for p in model.head.parameters()))


def test_delta_stays_with_the_batch_that_is_asked_about():
    class Disturb(Technique):
        def loss(self, model, batch, answer):
            model(batch.views[0].flip(0) * 3)
            return {}

    (plainly, model), (disturbed, other) = prepared(Delta()), prepared(Disturb(), Delta())
    b = batch(step=4)
    assert plainly.loss(model, b)["delta"].item() == disturbed.loss(other, b)["delta"].item()


def test_delta_attention_is_the_rise_of_the_loss_without_a_channel():
    torch.manual_seed(1)
    network, head = trunk(), nn.Linear(FEATURES, CLASSES)
    x, y = images(), torch.arange(12) % CLASSES
    m = network.block(network.stem(x)).detach().requires_grad_()
    found = delta_file.rise({0: m}, F.cross_entropy(head(network.pool(m)), y))[0].detach().numpy()
    with torch.no_grad():

        def loss(scale):
            return F.cross_entropy(head(network.pool(m * scale.view(1, -1, 1, 1))), y).item()

        ones, slopes, removed = torch.ones(FEATURES), [], []
        for c in range(FEATURES):
            away = F.one_hot(torch.tensor(c), FEATURES).float()
            slopes.append((loss(ones - 0.01 * away) - loss(ones + 0.01 * away)) / 0.02)
            removed.append(loss(ones - away) - loss(ones))
    assert np.allclose(found, slopes, atol=1e-4)
    assert np.corrcoef(found, removed)[0, 1] > 0.95  # first order tells channels apart as removing them does
    weights = delta_file.attention(torch.from_numpy(found)).numpy()
    standard = (found - found.mean()) / found.std() / 5
    assert np.allclose(weights, FEATURES * np.exp(standard) / np.exp(standard).sum(), atol=1e-5)
    assert np.array_equal(np.argsort(weights), np.argsort(found))
    assert np.allclose(delta_file.attention(torch.zeros(4)).numpy(), 1)


def test_delta_with_attention_weighs_the_same_distance():
    (equal, model), (weighed, other) = prepared(Delta()), prepared(Delta(attention=True))
    b = batch(step=4)
    step(equal, model, b)
    step(weighed, other, b)
    first, second = equal.loss(model, b)["delta"].item(), weighed.loss(other, b)["delta"].item()
    assert second != first
    assert second == pytest.approx(first, rel=0.5)
    assert all(p.grad is None for p in other.start.parameters())


def test_delta_holds_the_maps():
    def drift(*parts):
        method, model = prepared(*parts)
        for i in range(30):
            step(method, model, batch(step=i), rate=0.1)
        with torch.no_grad():
            x = images(32, seed=77)
            return float((model.trunk.eval()(x) - trunk()(x)).square().mean())

    assert drift(Delta(alpha=2.0)) < 0.5 * drift()


def test_delta_and_lwf_share_one_start_and_a_copy_of_the_model_is_on_its_own():
    method, model = prepared(Delta(), Lwf())
    step(method, model, batch())
    twin = copy.deepcopy(model)
    assert twin.delta.watch is not model.delta.watch
    a, b = (method.loss(m, batch(step=3))["delta"].item() for m in (model, twin))
    assert a == b
    method.finish(twin)
    assert not hasattr(twin, "start")
    assert method.loss(model, batch(step=3))["delta"].item() == pytest.approx(a, rel=0.2)
    method.finish(model)
    assert not any(module._forward_hooks for module in model.modules())


def test_tokens_are_channels_last():
    x = torch.randn(2, 5, 3)
    assert delta_file.channels_first(x).shape == (2, 3, 5)
    assert delta_file.distance(1.5 * x, x, None).item() == pytest.approx(0.25)


# above a cached boundary


def test_all_of_them_work_on_a_trunk_that_is_a_graph():
    """A GraphModule that takes two tensors: what lies above a cached boundary."""

    class Upper(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.pool = trunk().block, trunk().pool

        def forward(self, a, b):
            return self.pool(self.block(a) + b)

    class Leaves(fx.Tracer):
        def is_leaf_module(self, module, name):
            return True

    upper = Upper()
    graph = fx.GraphModule(upper, Leaves().trace(upper))
    every = (L2Sp(), Delta(attention=True), Bss(), Stochnorm(), CoTuning(), Lwf(), Dropout())
    method = tune(*every)
    model = method.prepare(graph, facts()).train()
    names = {name for name, _ in graph.named_parameters()}
    draw = torch.Generator().manual_seed(0)
    views = torch.randn(12, 4, 8, 8, generator=draw), torch.randn(12, FEATURES, 1, 1, generator=draw)
    for i in range(3):
        terms = step(method, model, changed(batch(step=i), views=views))
        assert all(math.isfinite(value) for value in terms.values())
    assert {"l2_sp", "delta", "bss", "co_tuning", "lwf"} <= set(terms)
    method.finish(model)
    assert {name for name, _ in model.trunk.named_parameters()} == names
    assert set(dict(model.named_children())) == {"trunk", "neck", "head"}
    assert STAGES[0][0] not in dict(graph.named_modules())  # a stage that is not there any more is passed over


def test_bad_options_are_told_together():
    with pytest.raises(BadSetting, match=r"alpha=0 .*beta=-1"):
        L2Sp(alpha=0, beta=-1)
    for bad in (
        lambda: Bss(k=0), lambda: Bss(eta=float("nan")), lambda: Delta(attention=1), lambda: Dropout(p=1.0),
        lambda: Stochnorm(p=1.5), lambda: Lwf(temperature=0), lambda: CoTuning(weight=-1), lambda: L2Sp(beta=True),
    ):  # fmt: skip
        with pytest.raises(BadSetting):
            bad()
