"""The call in a card's prose is read, never executed."""

from __future__ import annotations

import pytest

from topwork.backbones.architecture import Architecture, parse
from topwork.errors import BadWeights


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timm.create_model('a_100', pretrained=False, pad_type='same'); load_state_dict(f(file))",
         Architecture("timm", "a_100", {"pad_type": "same"})),
        ("build it with timm.create_model(model_name='b', drop=(0.1, [2])) and be glad (really)",
         Architecture("timm", "b", {"drop": (0.1, [2])})),
        ("torchvision.models.squeezenet1_0(weights=None); x", Architecture("torchvision", "squeezenet1_0")),
        ("timm.create_model('c', note='a ) in text')", Architecture("timm", "c", {"note": "a ) in text"})),
    ],
)  # fmt: skip
def test_known_calls(text, expected):
    assert parse(text, "card.json") == expected


@pytest.mark.parametrize(
    "text",
    [
        "a network",
        "timm.create_model(",
        "timm.create_model(__import__('os').system('true'))",
        "timm.create_model('a', act_layer=functools.partial(print))",
        "timm.create_model('a', **{'x': 1})",
        "timm.create_model('a', checkpoint_path='evil.pth')",
        "timm.create_model('a', pretrained_cfg={'file': 'evil.pth'})",
        "timm.create_model('hf-hub:someone/model')",
        "timm.create_model('local-dir:/tmp')",
        "timm.create_model()",
        "timm.create_model(3)",
        "timm.models.efficientnet._gen('a')",
        "torchvision.models.resnet18('IMAGENET1K_V1')",
        "torchvision.models.segmentation.fcn_resnet50()",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(BadWeights, match=r"^card\.json"):
        parse(text, "card.json")
