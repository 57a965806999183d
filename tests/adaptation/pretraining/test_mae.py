"""Masked autoencoder: exact shares, an error that only hidden patches make, and an encoder that never sees them."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from topwork import plugins
from topwork.adaptation.pretraining.mae import Autoencoder, Filled, Mae, last_maps, sine_places
from topwork.errors import BadSetting
from topwork.nn.masked_image import error, hidden, normalised, patches

from ._effect import trunk_of
from ._small import Plain, batch, facts, half_precision, images, vit
from ._strokes import beats_random

SMALL = {"width": 16, "depth": 1, "heads": 2}


def conv():
    return trunk_of("test_resnet", 0, {"output_stride": 8, "zero_init_last": False})


def made(trunk, **options):
    method = Mae(**{**SMALL, **options})
    return method, method.prepare(trunk, facts(trunk, 32)).train()


def rows_by_hand(picture, p):
    """(3, S, S) -> L lists of 3 p p numbers: patches row by row, within one channel by channel, row by row."""
    S = picture.shape[-1]
    return [
        [picture[c, top + y, left + x].item() for c in range(3) for y in range(p) for x in range(p)]
        for top in range(0, S, p)
        for left in range(0, S, p)
    ]


def loss_by_hand(guess, pictures, mask, p, power, per_patch):
    """Means over hidden patches of the mean error of their numbers, with plain numbers."""
    found = []
    for b in range(len(pictures)):
        for j, row in enumerate(rows_by_hand(pictures[b], p)):
            if not mask[b, j]:
                continue
            if per_patch:
                mean = sum(row) / len(row)
                variance = sum((x - mean) ** 2 for x in row) / (len(row) - 1)
                row = [(x - mean) / math.sqrt(variance + 1e-6) for x in row]
            found.append(sum(abs(a - y) ** power for a, y in zip(guess[b, j].tolist(), row, strict=True)) / len(row))
    return sum(found) / len(found)


def test_patches_are_cut_row_by_row():
    pictures = images(2, 12)
    cut = patches(pictures, 4)
    assert cut.shape == (2, 9, 48)
    for b in range(2):
        np.testing.assert_array_equal(cut[b].tolist(), rows_by_hand(pictures[b], 4))


@pytest.mark.parametrize(("build", "share", "p", "power"), [(vit, 0.75, 8, 2), (conv, 0.6, 4, 1)])
@pytest.mark.parametrize("per_patch", [True, False])
def test_the_loss_equals_plain_numbers(build, share, p, power, per_patch):
    method, model = made(build(), normalise=per_patch)
    pictures = images(3, 32)
    loss = method.loss(model, batch(pictures, seed=5))["hidden_patches"]
    L = (32 // p) ** 2
    mask = hidden(3, L, round(share * L), torch.Generator().manual_seed(5))
    expected = loss_by_hand(model(pictures, mask), pictures, mask, p, power, per_patch)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("L", "count"), [(16, 12), (9, 1), (64, 38), (4, 3)])
def test_the_share_is_exact_and_every_patch_has_its_turn(L, count):
    mask = hidden(4000, L, count, torch.Generator().manual_seed(0))
    assert (mask.sum(1) == count).all()
    share, error_of_share = count / L, math.sqrt(count / L * (1 - count / L) / 4000)
    assert (mask.double().mean(0) - share).abs().max() < 4.5 * error_of_share


def test_only_hidden_patches_count():
    g = torch.Generator().manual_seed(0)
    guess, target = torch.randn(3, 16, 12, generator=g), torch.randn(3, 16, 12, generator=g)
    mask = hidden(3, 16, 12, g)
    for power in (1, 2):
        before = error(guess, target, mask, power)
        changed = torch.where(mask[:, :, None], target, 100 * torch.randn(3, 16, 12, generator=g))
        assert torch.equal(error(guess, changed, mask, power), before)
        changed = torch.where(mask[:, :, None], target + 1, target)
        assert error(guess, changed, mask, power) != before


def test_a_flat_patch_has_a_finite_target():
    rows = normalised(torch.full((1, 2, 48), 0.3))
    assert torch.equal(rows, torch.zeros(1, 2, 48))


@pytest.mark.parametrize("build", [vit, conv])
def test_hidden_pixels_change_nothing_that_is_guessed(build):
    _, model = made(build())
    model.eval()
    pictures, p = images(2, 32), model.patch_px
    mask = hidden(2, model.L, model.count, torch.Generator().manual_seed(0))
    holes = mask.view(2, 1, 32 // p, 32 // p).repeat_interleave(p, 2).repeat_interleave(p, 3)
    other = torch.where(holes, images(2, 32, 9), pictures)
    assert torch.equal(model(other, mask), model(pictures, mask))
    seen = torch.where(holes, pictures, pictures + 1)
    assert not torch.allclose(model(seen, mask), model(pictures, mask))


@pytest.mark.parametrize("options", [{}, {"class_token": False, "global_pool": "avg"}, {"dynamic_img_size": True}])
def test_the_encoder_is_the_network_itself_without_the_hidden_tokens(options):
    trunk = vit(**options)
    _, model = made(trunk)
    network, pictures = trunk.eval().network, images(3, 32)
    mask = hidden(3, 16, 12, torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = network.patch_embed(pictures).flatten(1, -2)  # the steps of the forward pass, image by image
        prefix = network.num_prefix_tokens
        places = network.pos_embed[0]
        for b in range(3):
            own = [network.cls_token[0, 0] + places[0]] if prefix else []
            own += [tokens[b, j] + places[prefix + j] for j in range(16) if not mask[b, j]]
            expected = network.norm(network.blocks(torch.stack(own)[None]))[0]
            torch.testing.assert_close(model.encode(pictures[b : b + 1], mask[b : b + 1])[0], expected)
        nothing = torch.zeros(3, 16, dtype=torch.bool)
        torch.testing.assert_close(model.encode(pictures, nothing), network.forward_features(pictures))
    assert isinstance(network.patch_drop, nn.Identity)


def test_the_decoder_puts_every_token_in_its_place():
    _, model = made(vit())
    model.eval()
    mask = hidden(2, 16, 12, torch.Generator().manual_seed(2))
    tokens = model.encode(images(2, 32), mask)
    for b in range(2):
        embedded, seen = model.embed(tokens[b]), 0
        rows = [embedded[0]]
        for j in range(16):
            if mask[b, j]:
                rows.append(model.unseen + model.places[j])
            else:
                seen += 1
                rows.append(embedded[seen] + model.places[j])
        torch.testing.assert_close(model.decode(tokens, mask)[b], model.decoder(torch.stack(rows)[None])[0, 1:])


def test_places_are_sines_of_row_and_column():
    places = sine_places(3, 8)
    for row in range(3):
        for column in range(3):
            rates = (1.0, 10_000**-0.5)
            expected = [f(at * rate) for at in (row, column) for f in (math.sin, math.cos) for rate in rates]
            assert places[3 * row + column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("build", [vit, conv])
def test_gradients_reach_the_trunk(build):
    trunk = build()
    method, model = made(trunk)
    method.loss(model, batch(images(4, 32)))["hidden_patches"].backward()
    missing = [name for name, p in trunk.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing
    assert method.finish(model) is trunk


def test_batch_norm_remembers_whole_pictures_only():
    trunk = conv()
    method, model = made(trunk)
    pictures = 3 + images(6, 32)
    norm = next(m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    for step in range(1, 4):
        b = batch(pictures, step=step)
        method.loss(model, b)
        method.after(model, b)
    assert torch.equal(norm.running_mean, before)
    method.after(model, batch(pictures, step=4))
    seen = []
    hook = norm.register_forward_hook(lambda m, args, out: seen.append(args[0].mean((0, 2, 3))))
    trunk.eval()(pictures)
    hook.remove()
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * seen[0], rtol=1e-4, atol=1e-5)


def test_plain_vits_are_seen_in_part_and_all_others_filled():
    assert isinstance(made(vit())[1], Autoencoder)
    for arch, options in (("test_resnet", {}), ("test_convnext", {"patch_size": 2}), ("test_efficientnet", {})):
        assert isinstance(made(trunk_of(arch, 0, options))[1], Filled)


class Tokens(nn.Module):
    """A network that gives its last maps in one of timm's three layouts."""

    num_prefix_tokens = 1

    def __init__(self, layout):
        super().__init__()
        self.layout, self.output_fmt = layout, "NHWC" if layout == "NHWC" else "NCHW"

    def forward_features(self, x):
        maps = nn.functional.avg_pool2d(x, 4)[:, [0, 1, 2, 0]]  # 4 channels
        if self.layout == "NCHW":
            return maps
        rows = maps.permute(0, 2, 3, 1)
        return rows if self.layout == "NHWC" else torch.cat([rows[:, :1, 0] * 0, rows.flatten(1, 2)], 1)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NLC"])
@pytest.mark.parametrize("side_px", [16, 24])  # 4 x 4 maps of 4 channels look alike whichever way they lie
def test_last_maps_whatever_the_layout(layout, side_px):
    pictures = images(2, side_px)
    expected = nn.functional.avg_pool2d(pictures, 4)[:, [0, 1, 2, 0]]
    assert torch.equal(last_maps(Tokens(layout), pictures), expected)


def test_the_same_generator_gives_the_same_bits():
    for build in (vit, conv):
        method, model = made(build())
        model.eval()
        losses = [method.loss(model, batch(images(4, 32), seed=seed))["hidden_patches"].item() for seed in (1, 1, 2)]
        assert losses[0] == losses[1] != losses[2]
        heads = [torch.cat([p.flatten() for p in made(build())[1].parameters()]) for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in pairwise(heads))


def test_trunks_that_cannot_do_it():
    with pytest.raises(BadSetting, match="forward_features"):
        Mae().prepare(Plain(), facts(Plain(), 4))
    with pytest.raises(BadSetting, match="do not divide 32 px"):
        Mae(patch_px=5).prepare(conv(), facts(conv(), 32))
    with pytest.raises(BadSetting, match="patches of"):
        Mae(patch_px=4).prepare(vit(), facts(vit(), 32))


@pytest.mark.parametrize(
    "spec", ["mae(mask=1.0)", "mae(mask='most')", "mae(width=10)", "mae(depth=0)", "mae(normalise=2)"]
)
def test_bad_options_stop_at_once(spec):
    with pytest.raises(BadSetting, match="mae: "):
        plugins.make("adaptation.pretraining", spec)


@pytest.mark.parametrize("build", [vit, conv])
def test_half_precision(build):
    loss, gradient = half_precision(Mae(**SMALL), build(), 32, images(4, 32))
    assert 0 < loss < 20
    assert 0 < gradient < math.inf


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "steps", "arch", "options"), [
    ("mae", 120, "test_resnet", {"output_stride": 8}),
    ("mae(width=48, depth=1, mask=0.5)", 300, "vit_tiny_patch16_224", {
        "img_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 3, "class_token": False,
        "global_pool": "avg",
    }),
], ids=["convolutional", "vit"])  # fmt: skip
def test_a_short_training_beats_random(spec, steps, arch, options):
    assert beats_random(spec, steps=steps, arch=arch, **options).low > 0
