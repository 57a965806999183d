"""A trunk cut in two gives what the whole one gives, wherever it is cut, and shares its weights."""

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from topwork.backbones import find  # noqa: E402
from topwork.backbones.stages import Stages, shapes  # noqa: E402
from topwork.backbones.trunk import TimmTrunk, export_below  # noqa: E402
from topwork.errors import BadSetting  # noqa: E402
from topwork.nn.session import session  # noqa: E402


def trunk(name="test_resnet", grids=None, **options):
    torch.manual_seed(0)
    return TimmTrunk(timm.create_model(name, num_classes=0, **options), grids).eval()


@pytest.mark.parametrize(
    ("name", "options"),
    [("test_resnet", {}), ("test_efficientnet", {}), ("vit_tiny_patch16_224", {"depth": 3, "img_size": 64})],
)
def test_above_of_below_is_the_whole(name, options):
    whole = trunk(name, **options)
    images = torch.randn(3, 3, 64, 64)
    stages = Stages.of(whole, 64)
    assert sum(share for stage in stages.shares for share in stage) == pytest.approx(1)
    with torch.no_grad():
        expected = whole(images)
        for k in range(1, len(stages.layers)):
            below, above = stages.cut(k)
            assert torch.equal(above.eval()(*below(images)), expected)


def test_stages_are_runs_of_one_size():
    stages = Stages.of(trunk(), 64)
    assert [names[-1].rpartition(".")[0] for names in stages.names[1:-1]] == [
        "network.layer1",
        "network.layer2",
        "network.layer3",
    ]
    blocks = Stages.of(trunk("vit_tiny_patch16_224", depth=3, img_size=64), 64).names
    assert [stage[-1] if i < 2 else stage[0] for i, stage in enumerate(blocks)] == [
        f"network.blocks.{i}" for i in range(3)
    ]


def test_what_is_learnt_above_is_learnt_in_the_trunk():
    whole = trunk()
    stages = Stages.of(whole, 64)
    below, above = stages.cut(len(stages.layers) - len(stages.names[-1]))
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    above.train()
    above(*below(torch.randn(4, 3, 64, 64))).square().sum().backward()
    torch.optim.SGD([p for p in above.parameters() if p.requires_grad], 0.1).step()
    changed = {name for name, tensor in whole.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("network.layer4") for name in changed)
    assert not any(p.requires_grad for p in below.parameters())


def test_means_of_early_maps_cross_as_means():
    backbone = find("bundled")
    stages = Stages.of(backbone.module(), 128)
    below, above = stages.cut(len(stages.layers) - 4)
    crossing = shapes(below, 128)
    assert max(torch.Size(shape).numel() for shape in crossing) < 8_000  # whole maps of stage 1 have 16,384
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(above.eval()(*below(images)), backbone.module()(images))


def test_the_lower_part_as_onnx_gives_the_same():
    stages = Stages.of(trunk(), 64)
    below, _ = stages.cut(6)
    images = torch.randn(2, 3, 64, 64)
    found = session(export_below(below, 64)).run(None, {"images": images.numpy()})
    with torch.no_grad():
        for x, y in zip(found, below(images), strict=True):
            assert abs(x - y.numpy()).max() < 1e-4


def test_code_that_cannot_be_followed_is_said():
    class Moody(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.network(x) if x.mean() > 0 else x

    with pytest.raises(BadSetting, match="Tune all of it"):
        Stages.of(Moody(), 64)
