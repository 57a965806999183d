"""Layers put in and taken out by name, tried before anything is trained."""

import numpy as np
import pytest
import torch
from torch import fx, nn

from topwork.adaptation import Facts
from topwork.adaptation.graft import Grafted, Scope, Tune, techniques
from topwork.adaptation.surgery.mlp_head import MlpHead
from topwork.adaptation.surgery.replace import Replace
from topwork.errors import BadSetting

S, D, C = 16, 6, 3
FACTS = Facts(D, S, (C,), 8, 10)


class Trunk(nn.Module):
    """Layers inside `network`, as in the trunks of the house."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, D)
        )

    def forward(self, x):
        return self.network(x)


def model():
    return Grafted(Trunk(), nn.Linear(D, C)).train()


def images():
    return torch.randn(5, 3, S, S, generator=torch.Generator().manual_seed(0))


def test_mlp_head_by_the_formula():
    m = model()
    MlpHead((8, 7), dropout=0.5, activation="relu").prepare(m, FACTS)
    one, two = m.neck[0], m.neck[3]
    answer = m.eval()(images())
    z = m.trunk(images())
    for layer in (one, two):
        z = torch.relu(z @ layer.weight.T + layer.bias)
    torch.testing.assert_close(answer.features, z)
    torch.testing.assert_close(answer.logits, m.head(z))
    assert m.head.weight.shape == (C, 7)
    assert type(m.head) is nn.Linear
    assert [type(layer).__name__ for layer in m.neck] == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout"]


def test_mlp_head_is_drawn_from_the_seed_alone():
    heads = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        m = model()
        torch.manual_seed(noise)
        MlpHead(8).prepare(m, Facts(D, S, (C,), 8, 10, seed=seed))
        heads.append(m.neck[0].weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_mlp_head_learns_at_the_rate_of_the_head():
    method = Tune(techniques("full + mlp_head(8)"), np.zeros((D, C), np.float32), np.zeros(C, np.float32))
    m = method.prepare(Trunk(), FACTS)
    rates = method.rates(m)
    assert rates["neck.0.weight"] == rates["head.weight"] == 10
    assert rates["trunk.network.0.weight"] == 1
    assert {name for name, p in m.named_parameters() if p.requires_grad} == set(rates)


def test_mlp_heads_problems_are_told_together():
    with pytest.raises(BadSetting, match=r"hidden=0.*dropout=1.*activation='step'"):
        MlpHead(0, dropout=1, activation="step")
    with pytest.raises(BadSetting, match="names no width"):
        MlpHead(())


@pytest.mark.parametrize(
    ("layer", "by", "kind"),
    [
        ("1", "identity", nn.Identity),
        ("network.1", "identity", nn.Identity),
        ("2", "gelu", nn.GELU),
        ("2", "dropout(0.3)", nn.Dropout),
        ("5", "linear", nn.Linear),
        ("5", "linear(6)", nn.Linear),
        ("5", "mlp(9)", nn.Sequential),
    ],
)
def test_layers_are_replaced(layer, by, kind):
    m = model()
    before = {name: mode.training for name, mode in m.named_modules()}
    old = m.trunk.network[int(layer[-1])]
    Replace(layer, by).prepare(m, FACTS)
    new = m.trunk.network[int(layer[-1])]
    assert type(new) is kind
    assert new is not old
    assert {n: x.training for n, x in m.named_modules() if n in before} == before
    assert m(images()).features.shape == (5, D)
    if by == "mlp(9)":
        assert [tuple(w.shape) for w in new.parameters() if w.ndim == 2] == [(9, 4), (6, 9)]
    if by == "dropout(0.3)":
        assert new.p == 0.3


def test_an_identity_in_place_of_a_norm_takes_its_effect_away():
    m = model().eval()
    m.trunk.network[1].running_mean.fill_(3.0)
    plain = m.trunk.network
    wanted = plain[5](torch.relu(plain[0](images())).mean((2, 3)))
    Replace("1").prepare(m, FACTS)
    torch.testing.assert_close(m(images()).features, wanted)


@pytest.mark.parametrize(
    ("layer", "by", "said"),
    [
        ("networ.5", "mlp", "no layer 'networ.5' among 7. Near: "),
        ("", "identity", "no layer ''"),
        ("5", "linear(9)", r"does not fit in place of network.5 \(Linear\)"),
        ("0", "identity", r"does not fit in place of network.0 \(Conv2d\)"),
        ("0", "mlp(9)", "can take the place of a Linear layer, not of Conv2d"),
    ],
)
def test_what_does_not_fit_is_said_and_left_alone(layer, by, said):
    m = model()
    before = dict(m.named_modules())
    with pytest.raises(BadSetting, match=said):
        Replace(layer, by).prepare(m, FACTS)
    assert dict(m.named_modules()) == before


def test_near_names_are_told():
    with pytest.raises(BadSetting, match="Near: network"):
        Replace("network_").prepare(model(), FACTS)


@pytest.mark.parametrize(
    "by", ["step", "__import__('os')", "mlp(0)", "mlp(2.5)", "dropout(1)", "relu(3)", "mlp(256", "identity(1)", 3, ""]
)
def test_only_the_table_is_known(by):
    with pytest.raises(BadSetting, match=r"cannot be\. Expected one of"):
        Replace("5", by)


def cut():
    """Layers 2 .. 5 of a trunk, as they are left above a cached boundary."""
    trunk, graph = Trunk(), fx.Graph()
    x = graph.placeholder("x")
    for i in range(2, 6):
        x = graph.call_module(f"network.{i}", (x,))
    graph.output(x)
    return Grafted(fx.GraphModule(trunk, graph), nn.Linear(D, C))


def test_above_a_cached_boundary():
    m = cut()
    Replace("2", "gelu").prepare(m, FACTS)
    Replace("5", "mlp(9)").prepare(m, FACTS)
    assert m(torch.randn(2, 4, 5, 5)).features.shape == (2, D)
    assert isinstance(m.trunk.get_submodule("network.2"), nn.GELU)
    with pytest.raises(BadSetting, match=r"no layer '0'.*frozen and cached cannot be replaced"):
        Replace("0").prepare(m, FACTS)
    with pytest.raises(BadSetting, match="only layers that keep the shape"):
        Replace("3").prepare(m, FACTS)
    m = cut()
    with pytest.raises(BadSetting, match="it gives 9 numbers, 6 are expected"):
        Replace("5", "linear(9)").prepare(m, FACTS)
    assert isinstance(m.trunk.get_submodule("network.5"), nn.Linear)


def test_specs():
    made = techniques("full + replace(layer='network.1', by='identity') + mlp_head(8, dropout=0.1)")
    assert isinstance(made[0], Scope)
    assert made[1] == Replace("network.1", "identity")
    assert made[2] == MlpHead(8, 0.1)
