"""How far weights have gone, stage by stage."""

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from topwork.backbones.tuned import movement  # noqa: E402


def test_movement_is_the_length_of_the_change_over_the_length_before():
    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))

    before = Trunk()
    after = copy.deepcopy(before)
    with torch.no_grad():
        after.network[3].weight.mul_(1.5)
        after.network[3].bias.mul_(1.5)
        after.network[2].running_mean.add_(9.0)
    stages = [("network.0", "network.1"), ("network.2",), ("network.3",), ("network.1",)]
    still, norm, head = movement(before, after, stages)  # a stage without weights is not told of
    assert still == {"name": "0", "tensors": 2, "moved": 0, "change": 0.0}
    assert (norm["name"], norm["tensors"], norm["moved"], norm["change"]) == ("2", 5, 1, 0.0)
    assert (head["tensors"], head["moved"]) == (2, 2)
    assert head["change"] == pytest.approx(0.5)
    after.network[3] = nn.Conv2d(4, 7, 1)  # replaced: nothing to compare
    assert movement(before, after, stages[2:3]) == []
