"""The classifier of a folder, against the whole network where its weights are here, and by hand."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from topwork.backbones import find
from topwork.backbones.source_head import _last_linear, probabilities, source_head


def test_by_hand():
    head = (np.array([[1.0, 0.0], [0.0, 2.0]], np.float32), np.array([0.0, np.log(3)], np.float32))
    assert probabilities(np.zeros((1, 2), np.float32), head) == pytest.approx(np.array([[0.25, 0.75]]))
    e = np.exp(1)
    assert probabilities(np.array([[1.0, 0.0]], np.float32), head) == pytest.approx(np.array([[e, 3]]) / (e + 3))


def test_the_last_linear_layer_of_the_top_is_meant():
    def shapes(**named):
        return {name.replace("__", "."): shape for name, shape in named.items()}

    mlp = shapes(
        classifier__0__weight=(64, 32), classifier__0__bias=(64,), classifier__3__weight=(64, 64),
        classifier__3__bias=(64,), classifier__10__weight=(9, 64), classifier__10__bias=(9,),
    )  # fmt: skip
    assert _last_linear(mlp, 64) == "classifier.10.weight"
    assert _last_linear(shapes(head__fc__weight=(9, 64), head__fc__bias=(9,)), 64) == "head.fc.weight"
    assert _last_linear(shapes(head__weight=(9, 64), head__bias=(9,), head_dist__weight=(9, 64)), 64) == "head.weight"
    assert _last_linear(shapes(classifier__1__weight=(9, 64, 1, 1), classifier__1__bias=(9,)), 64) is None
    assert _last_linear(shapes(fc__weight=(9, 64), fc__bias=(9,)), 128) is None
    assert _last_linear(shapes(block__fc__weight=(9, 64), block__fc__bias=(9,)), 64) is None


def test_bundled_backbones_have_none():
    assert source_head(find("bundled"), 1856) is None
    assert source_head(find("bundled:pixels"), 768) is None


def test_damaged_weights_are_no_head(tmp_path):
    class Stub:
        card = type("Card", (), {"spec": f"local:{tmp_path}"})

    assert source_head(Stub(), 4) is None
    save_file(
        {"fc.weight": np.ones((3, 4), np.float32), "fc.bias": np.zeros(3, np.float32)}, tmp_path / "a.safetensors"
    )
    weight, bias = source_head(Stub(), 4)
    assert weight.shape == (4, 3)
    assert bias.shape == (3,)
    (tmp_path / "a.safetensors").write_bytes(b"no")
    assert source_head(Stub(), 4) is None


@pytest.mark.slow
def test_says_what_the_whole_network_says(weights):
    torch = pytest.importorskip("torch")
    import timm
    from safetensors.torch import load_file

    folder = weights / "mobilenetv2_100"
    backbone = find(f"local:{folder}")
    network = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same").eval()
    network.load_state_dict(load_file(folder / "model.safetensors"))
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = network(images).softmax(1).numpy()
        x = backbone.module()(images).numpy()
    assert probabilities(x, source_head(backbone, x.shape[1])) == pytest.approx(whole, abs=1e-5)
    assert source_head(find(f"local:{weights / 'squeezenet1_0'}"), 512) is None  # convolutional
