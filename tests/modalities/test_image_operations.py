"""Every change against torchvision's of the same name, picture by picture; draws; company."""

import math

import numpy as np
import pytest
import torch

from topwork.modalities import image_operations as ops
from topwork.modalities.image_operations import NARROW, OPERATIONS, WIDE, operate

pytestmark = pytest.mark.usefixtures("one_thread")

B, S = 5, 32
LUMA_GAP = 3e-4  # torchvision rounds 0.299 to 0.2989


def pictures(count=B, side=S, seed=0):
    """Smooth ones with a little noise, of different brightness and contrast."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    span = 0.3 + 0.7 * torch.rand(count, 3, 1, 1, generator=draw)
    noise = 0.05 * torch.rand(count, 3, side, side, generator=draw)
    return (smooth * span + noise).clamp(0, 1)


def numbers(name, strengths, signs):
    u = torch.empty(len(strengths), 3)
    u[:, 0] = (OPERATIONS.index(name) + 0.5) / len(OPERATIONS)
    u[:, 1], u[:, 2] = torch.tensor(strengths), torch.where(torch.tensor(signs) > 0, 0.75, 0.25)
    return u


def theirs(name, x, m, sign, reach):
    """torchvision, one picture (3, S, S)."""
    v2 = pytest.importorskip("torchvision.transforms.v2.functional")
    # Around the picture is grey. Theirs fills with black by the weight of what is seen, with grey by its square.
    kept, y = {"interpolation": v2.InterpolationMode.BILINEAR}, x - 0.5
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    degrees = math.degrees(math.atan(sign * m * reach.shear))
    shift, factor = sign * m * reach.translate * x.shape[-1], 1 + sign * m * reach.colour
    calls = {
        "identity": lambda: x,
        "shear_x": lambda: v2.affine(y, **{**still, "shear": [degrees, 0.0]}, center=[0, 0], **kept) + 0.5,
        "shear_y": lambda: v2.affine(y, **{**still, "shear": [0.0, degrees]}, center=[0, 0], **kept) + 0.5,
        "translate_x": lambda: v2.affine(y, **{**still, "translate": [shift, 0]}, **kept) + 0.5,
        "translate_y": lambda: v2.affine(y, **{**still, "translate": [0, shift]}, **kept) + 0.5,
        "rotate": lambda: v2.rotate(y, sign * m * reach.rotate, **kept) + 0.5,
        "brightness": lambda: v2.adjust_brightness(x, factor),
        "colour": lambda: v2.adjust_saturation(x, factor),
        "contrast": lambda: v2.adjust_contrast(x, factor),
        "sharpness": lambda: v2.adjust_sharpness(x, factor),
        "posterize": lambda: v2.posterize(x, round(8 - reach.bits * m)),
        "solarize": lambda: v2.solarize(x, 1 - m),
        "autocontrast": lambda: v2.autocontrast(x),
        "equalize": lambda: v2.equalize(x),
    }
    return calls[name]()


@pytest.mark.parametrize("reach", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_against_torchvision(name, reach):
    x, strengths, signs = pictures(), [0.0, 0.25, 0.5, 0.8, 1.0], [1.0, -1.0, 1.0, -1.0, 1.0]
    found = operate(x.clone(), numbers(name, strengths, signs), reach)
    for b in range(B):
        expected = theirs(name, x[b], strengths[b], signs[b], reach)
        tolerance = LUMA_GAP if name in ("colour", "contrast") else 1e-5
        torch.testing.assert_close(found[b], expected, atol=tolerance, rtol=0, msg=lambda text, b=b: f"{b}: {text}")
    changed = (found - x).abs().amax((1, 2, 3)) > 0.01
    assert changed[2:].all() == (name != "identity")


def test_a_shift_is_of_whole_pixels_and_leaves_grey():
    x = pictures(1)
    found = operate(x.clone(), numbers("translate_x", [0.5], [1.0]), ops.Reach(translate=8 / S))  # to the right by 4
    torch.testing.assert_close(found[..., 4:], x[..., :-4], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[..., :4], torch.full((1, 3, S, 4), 0.5), atol=1e-6, rtol=0)


def test_flat_pictures_stay_what_they_are():
    x = torch.full((2, 3, 8, 8), 100 / 255)
    for name in ("autocontrast", "equalize", "sharpness", "contrast", "colour"):
        found = operate(x.clone(), numbers(name, [0.7, 0.7], [1.0, -1.0]), WIDE)
        torch.testing.assert_close(found, x, atol=1e-6, rtol=0, msg=name)


def test_all_are_drawn_equally_often_and_stay_in_range():
    N = 2800
    u = torch.rand(N, 3, generator=torch.Generator().manual_seed(1))
    kind = (u[:, 0] * len(OPERATIONS)).long()
    assert torch.bincount(kind).min() > 150
    x = pictures(N, side=6)
    found = operate(x.clone(), u, WIDE)
    assert found.min() >= -1e-6
    assert found.max() <= 1 + 1e-6
    same = (found == x).flatten(1).all(1)
    assert same[kind == OPERATIONS.index("identity")].all()
    assert same[kind != OPERATIONS.index("identity")].float().mean() < 0.05


def test_an_item_does_not_depend_on_its_company_to_the_bit():
    N = 64
    x, u = pictures(N), torch.rand(N, 3, generator=torch.Generator().manual_seed(2))
    together = operate(x.clone(), u, WIDE)
    for rows in ([5], [3, 60, 17], list(np.arange(63, -1, -1))):
        assert torch.equal(operate(x[rows].clone(), u[rows], WIDE), together[rows])


def test_a_given_magnitude_replaces_the_drawn_one():
    x, u = pictures(), numbers("brightness", [0.1, 0.2, 0.3, 0.4, 0.5], [1.0, -1.0, 1.0, -1.0, 1.0])
    found = operate(x.clone(), u, NARROW, magnitude=0.3)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).view(B, 1, 1, 1)
    torch.testing.assert_close(found, (x * (1 + signs * 0.27)).clamp(0, 1))
