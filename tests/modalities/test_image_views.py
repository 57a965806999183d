import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from topwork.modalities.image_operations import operate
from topwork.modalities.image_views import (
    LUMA,
    RECIPES,
    Recipe,
    blurred,
    boxes,
    colours,
    crop,
    recolour,
    uniforms,
    view,
)  # fmt: skip

B, P = 6, 20
frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (B, P, P, 3), dtype=np.uint8))
ROWS, VISITS = np.arange(10, 10 + B), np.array([0, 0, 1, 1, 2, 2])


def shown(recipe, rows=ROWS, visits=VISITS, number=0, seed=3, size=16, pixels=frames):
    return view(pixels, recipe, size, seed=seed, visits=visits, rows=rows, number=number)


@pytest.mark.parametrize("name", RECIPES)
def test_a_view_does_not_depend_on_its_company(name):
    recipe = RECIPES[name]
    together = shown(recipe)
    assert together.shape == (B, 3, recipe.side_px(16), recipe.side_px(16))
    assert together.dtype == torch.float32
    order = np.array([4, 1, 3])
    apart = shown(recipe, ROWS[order], VISITS[order], pixels=frames[order])
    torch.testing.assert_close(apart, together[order], atol=1e-6, rtol=0)
    assert together.min() >= -1e-6
    assert together.max() <= 1 + 1e-6


def test_row_visit_number_and_seed_each_give_another_view():
    base = shown(RECIPES["strong"])
    others = {
        "row": {"rows": ROWS + 100},
        "visit": {"visits": VISITS + 1},
        "number": {"number": 1},
        "seed": {"seed": 4},
    }
    for name, other in others.items():
        gaps = (shown(RECIPES["strong"], **other) - base).abs().amax((1, 2, 3))
        assert gaps.min() > 0.01, name


def test_counters_give_independent_uniform_numbers():
    u = uniforms(0, np.arange(4000) % 7, np.arange(4000), 2)
    assert u.min() >= 0
    assert u.max() < 1
    assert np.abs(u.mean(0) - 0.5).max() < 0.02
    assert np.abs(u.var(0) - 1 / 12).max() < 0.005
    assert np.abs(np.corrcoef(u, rowvar=False) - np.eye(u.shape[1])).max() < 0.06
    assert np.abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.06


def test_plain_is_the_middle_and_the_whole_frame_is_itself():
    whole = shown(Recipe(area=(1.0, 1.0), ratio=1.0, centred=True), size=P)
    torch.testing.assert_close(whole, frames.permute(0, 3, 1, 2) / 255, atol=1e-6, rtol=0)
    half = shown(Recipe(area=(0.25, 0.25), ratio=1.0, centred=True), size=P // 2)
    torch.testing.assert_close(half, frames[:, 5:15, 5:15].permute(0, 3, 1, 2) / 255, atol=1e-6, rtol=0)
    mirrored = shown(Recipe(area=(1.0, 1.0), ratio=1.0, centred=True, flip=1.0), size=P)
    torch.testing.assert_close(mirrored, whole.flip(3), atol=1e-6, rtol=0)


def test_crop_against_a_plain_bilinear_loop():
    S, box = 7, torch.tensor([[0.1, -0.2, -0.5, 0.7]]).repeat(B, 1)
    found = crop(frames, box, S)
    x, y, w, h = box[0].tolist()
    pixels = frames[2].numpy() / 255
    for i in range(S):
        for j in range(S):
            column = ((x + w * ((2 * j + 1) / S - 1)) + 1) * P / 2 - 0.5
            row = ((y + h * ((2 * i + 1) / S - 1)) + 1) * P / 2 - 0.5
            c, r = math.floor(column), math.floor(row)
            expected = np.zeros(3)
            for dr, dc in ((0, 0), (0, 1), (1, 0), (1, 1)):
                weight = (1 - abs(row - r - dr)) * (1 - abs(column - c - dc))
                expected += weight * pixels[np.clip(r + dr, 0, P - 1), np.clip(c + dc, 0, P - 1)]
            np.testing.assert_allclose(found[2, :, i, j], expected, atol=1e-5)


def test_boxes_keep_their_bounds():
    recipe = RECIPES["strong"]
    u = torch.from_numpy(uniforms(1, np.zeros(5000, np.int64), np.arange(5000), 0))[:, :5]
    x, y, w, h = boxes(u, recipe).T
    area, ratio = (w.abs() * h), (w.abs() / h)
    assert (x.abs() + w.abs()).max() <= 1 + 1e-6
    assert (y.abs() + h).max() <= 1 + 1e-6
    free = (w.abs() < 1) & (h < 1)  # a box wider than the frame is cut
    assert area[free].min() >= 0.2 - 1e-6
    assert area[free].max() <= 1 + 1e-6
    assert ratio.min() >= 3 / 4 - 1e-5
    assert ratio.max() <= 4 / 3 + 1e-5
    assert (w < 0).float().mean() == pytest.approx(0.5, abs=0.03)


def test_colours_against_plain_steps():
    recipe = Recipe(jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    x = frames.permute(0, 3, 1, 2) / 255
    u = torch.from_numpy(uniforms(0, VISITS, ROWS, 0))[:, :6]
    found = recolour(x, *colours(x, u, recipe))
    yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    for b in range(B):
        a, c, s = (1 + 0.4 * (2 * u[b, k].item() - 1) for k in (1, 2, 3))
        turn = 2 * math.pi * 0.1 * (2 * u[b, 4].item() - 1)
        picture = x[b].numpy() * a
        picture = c * picture + (1 - c) * (np.array(LUMA)[:, None, None] * picture).sum(0).mean()
        grey = (np.array(LUMA)[:, None, None] * picture).sum(0)
        picture = s * picture + (1 - s) * grey
        around = np.array([[1, 0, 0], [0, math.cos(turn), -math.sin(turn)], [0, math.sin(turn), math.cos(turn)]])
        picture = np.einsum("ij,jhw->ihw", np.linalg.inv(yiq) @ around @ yiq, picture)
        np.testing.assert_allclose(found[b], picture.clip(0, 1), atol=1e-5)


def test_shares_of_grey_and_of_jitter():
    many = torch.full((3000, 2, 2, 3), 100, dtype=torch.uint8)
    many[..., 0] = 200
    rows = np.arange(3000)
    recipe = replace(RECIPES["strong"], blur=0.0)
    seen = view(many, recipe, 2, seed=0, visits=0 * rows, rows=rows, number=0)
    grey = (seen.amax(1) - seen.amin(1)).amax((1, 2)) < 1e-3
    assert grey.float().mean() == pytest.approx(0.2, abs=0.03)
    untouched = (seen[:, 0, 0, 0] - 200 / 255).abs() < 1e-5
    assert untouched.float().mean() == pytest.approx(0.2 * 0.8, abs=0.03)


def test_blur_against_a_plain_loop():
    x = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    found = blurred(x, torch.tensor([0.8, 2.0]))
    for b, sigma in enumerate((0.8, 2.0)):
        for i, j in ((0, 0), (4, 3), (8, 8)):
            weights = np.array(
                [[math.exp(-((i - r) ** 2 + (j - c) ** 2) / (2 * sigma**2)) for c in range(9)] for r in range(9)]
            )
            weights /= weights.sum()
            np.testing.assert_allclose(found[b, :, i, j], (x[b].numpy() * weights).sum((1, 2)), atol=1e-5)


def test_normalised_with_mean_and_std():
    recipe = RECIPES["light"]
    plain = shown(recipe)
    done = view(
        frames, recipe, 16, seed=3, visits=VISITS, rows=ROWS, number=0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
    )
    expected = (plain - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(done, expected)


def test_draws_are_pinned():
    """Runs that were begun go on as they began: these numbers must never change."""
    u = uniforms(3, VISITS, ROWS, 0)
    assert (u[0, :3] * 2**24).astype(int).tolist() == [2615788, 4528717, 13420746]
    assert (u[5, 9:] * 2**24).astype(int).tolist() == [13070193, 11717718, 14527782]
    np.testing.assert_array_equal(uniforms(3, VISITS, ROWS, 0, 20)[:, :12], u)  # more draws leave the first ones


def test_recipes_without_mirroring_and_those_that_only_mirror():
    frame = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    frame[:, :, 8:] = 255  # bright on the right
    many, rows = frame.expand(400, -1, -1, -1), np.arange(400)

    def mirrored(name):
        seen = view(many, RECIPES[name], 14, seed=0, visits=0 * rows, rows=rows, number=0)
        return ((seen[:, :, :, -1] < seen[:, :, :, 0]).float().mean((1, 2)) > 0.5).float().mean().item()

    assert mirrored("crop_upright") == 0
    assert mirrored("plain") == 0
    assert mirrored("flip") == pytest.approx(0.5, abs=0.08)
    assert mirrored("crop") > 0.3  # a box may miss the edge
    flipped, plain = shown(RECIPES["flip"]), shown(RECIPES["plain"])
    for b in range(B):
        assert min((flipped[b] - plain[b]).abs().max(), (flipped[b].flip(2) - plain[b]).abs().max()) < 1e-6


def test_crop_is_light_without_colours():
    same = replace(RECIPES["light"], jitter=0.0)
    torch.testing.assert_close(shown(RECIPES["crop"]), shown(same), atol=0, rtol=0)
    assert not torch.equal(shown(RECIPES["crop"]), shown(RECIPES["crop_upright"]))


@pytest.mark.parametrize(("name", "count"), [("trivial", 1), ("rand", 2)])
def test_changes_come_after_the_crop(name, count):
    recipe, u = RECIPES[name], torch.from_numpy(uniforms(3, VISITS, ROWS, 0, 12 + 3 * count))
    expected = shown(RECIPES["crop"])
    for k in range(count):
        expected = operate(expected, u[:, 12 + 3 * k : 15 + 3 * k], recipe.reach, recipe.magnitude)
    torch.testing.assert_close(shown(recipe), expected, atol=0, rtol=0)
    order = np.array([4, 1, 3])
    apart = shown(recipe, ROWS[order], VISITS[order], pixels=frames[order])
    assert torch.equal(apart, shown(recipe)[order])  # some changes are jumps: to the bit
