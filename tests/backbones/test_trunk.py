"""Torch networks without their top, and their graphs."""

from __future__ import annotations

import numpy as np
import pytest

from topwork.backbones.architecture import Architecture
from topwork.errors import BadWeights, ProofFailed

torch = pytest.importorskip("torch", reason="needs the train extra")
timm = pytest.importorskip("timm", reason="needs the train extra")
models = pytest.importorskip("torchvision.models", reason="needs the train extra")
onnx = pytest.importorskip("onnx")


def nothing(network) -> None:
    """Keep the random weights."""


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_torchvision_features_are_what_the_last_linear_layer_reads(name):
    from topwork.backbones import trunk

    seen = []
    kept = {}
    made = trunk.build(Architecture("torchvision", name), lambda network: kept.update(network.state_dict()))
    network = models.get_model(name, weights=None)
    network.load_state_dict(kept)
    last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    last.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        network.eval()(images)
        assert torch.allclose(made(images), seen[0], atol=1e-6)


def test_timm_trunk_has_no_classifier_left():
    from topwork.backbones import trunk

    made = trunk.build(Architecture("timm", "test_vit"), nothing)
    assert not [n for n, p in made.named_parameters() if p.shape[:1] == (1000,)]
    assert made(torch.randn(2, 3, 160, 160)).shape == (2, made.network.num_features)


def test_grids_append_means_of_equal_cells():
    from topwork.backbones import trunk

    network = timm.create_model("test_efficientnet", pretrained=False).eval()
    made = trunk.build(
        Architecture("timm", "test_efficientnet"), lambda own: own.load_state_dict(network.state_dict()), {1: 4, 2: 2}
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps, stages = network.forward_intermediates(images)
        parts = [network.forward_head(maps, pre_logits=True).numpy()]
        for stage, g in ((stages[1].numpy(), 4), (stages[2].numpy(), 2)):
            N, C, side, _ = stage.shape
            cells = stage.reshape(N, C, g, side // g, g, side // g).mean((3, 5))  # (N, C, g, g)
            parts.append(cells.reshape(N, -1))
        np.testing.assert_allclose(made(images).numpy(), np.concatenate(parts, 1), atol=1e-5)
        with pytest.raises(BadWeights, match="do not divide"):
            trunk.TimmTrunk(network, {1: 3})(images)
    with pytest.raises(BadWeights, match="timm networks only"):
        trunk.build(Architecture("torchvision", "resnet18"), nothing, {1: 4})


def test_graph_is_small_clean_and_the_same_every_time():
    from topwork.backbones import trunk

    torch.manual_seed(0)
    network = trunk.build(Architecture("timm", "test_efficientnet", {"pad_type": "same"}), nothing)
    first, again = trunk.export(network, 96), trunk.export(network, 96)
    assert first == again
    assert b"site-packages" not in first
    graph = onnx.load_from_string(first).graph
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"Pad", "BatchNormalization", "Shape"}  # a fixed input size: 'same' padding is a constant
    assert [v.name for v in graph.input] == ["images"]
    assert [v.name for v in graph.output] == ["features"]
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param


def test_a_graph_that_differs_from_torch_is_refused(monkeypatch):
    from topwork.backbones import trunk

    network = trunk.build(Architecture("timm", "test_resnet"), nothing)
    plain = trunk.onnx_graph.plain

    def spoilt(model):
        model = plain(model)
        weight = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + np.float32(1), weight.name))
        return model

    monkeypatch.setattr(trunk.onnx_graph, "plain", spoilt)
    with pytest.raises(ProofFailed, match="differs from torch by"):
        trunk.export(network, 64)


def test_wrong_weights_name_both_sides():
    from topwork.backbones import trunk

    network = timm.create_model("test_resnet", pretrained=False)
    state = dict(network.state_dict())
    state["surprise"] = state.pop("conv1.0.weight")
    state["fc.bias"] = torch.zeros(7)
    with pytest.raises(BadWeights) as caught:
        trunk.fill(network, state, "w.safetensors")
    assert str(caught.value).startswith(
        "w.safetensors does not fit its architecture: 1 tensors missing (conv1.0.weight); 1 tensors unknown to the "
        "architecture (surprise); 1 of another shape (fc.bias: file [7], architecture [1000]). The architecture has "
    )


def test_unknown_architectures():
    from topwork.backbones import trunk

    with pytest.raises(BadWeights, match="no image classifier 'load'"):
        trunk.build(Architecture("torchvision", "load"), nothing)
    with pytest.raises(BadWeights, match="cannot build timm:nonsense"):
        trunk.build(Architecture("timm", "nonsense"), nothing)
    with pytest.raises(BadWeights, match="cannot build timm:test_resnet"):
        trunk.build(Architecture("timm", "test_resnet", {"no_such_option": 1}), nothing)
