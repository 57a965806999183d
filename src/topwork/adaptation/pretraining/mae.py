"""Masked autoencoder: hide most patches of an image, and say what their pixels were.

    L = mean over hidden patches j, pixels i of  |g_ji - y_ji|^r          y: the patch's pixels, normalised on their own

Plain ViTs of timm (r = 2): the encoder sees the visible patches only, a quarter of all, so a step is cheap; a small
decoder, thrown away afterwards, gets their tokens, a learned token for each hidden one, and fixed sine positions:

    images (B, 3, S, S) -> tokens of the visible (B, V, D) -> all L tokens (B, L, W) -> pixels (B, L, 3 p p)

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.

All other networks of timm that have last maps (r = 1): a convolution cannot leave pixels out, so hidden patches get one
learned colour, and one linear layer on the last maps (B, D, h, w) says the pixels below each cell:

    images with holes -> maps (B, D, h, w) -> pixels (B, 3, S, S) -> patches (B, L, 3 p p)

Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022. We differ: the holes are filled before the
first layer, not after it. BatchNorm would remember how pictures with holes look, so it remembers nothing of them; every
`WHOLE`-th step it sees the whole pictures instead. What a network has between its last maps and its features (conv_head
in MobileNetV3, attention pooling) is not trained.

Per patch normalised: y = (x - mean) / sqrt(var + 1e-6), which He et al. found better; `normalise=False`: plain pixels.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Method
from topwork.adaptation.options import Check
from topwork.errors import BadSetting
from topwork.nn.masked_image import error, hidden, normalised, patches
from topwork.nn.projector import linear

WHOLE = 4  # steps


@dataclass(frozen=True)
class Mae(Method):
    """Reconstruction of hidden patches."""

    mask: float | None = None  # share of patches that is hidden; None: 0.75 for ViTs, 0.6 for others
    patch_px: int | None = None  # side of a patch; None: the ViT's own, an eighth of the image for others
    normalise: bool = True  # each patch by its own mean and deviation
    width: int = 128  # W of the decoder (ViTs)
    depth: int = 2  # its blocks
    heads: int = 4
    views = ("light",)

    def __post_init__(self) -> None:
        check = Check("mae")
        if self.mask is not None:
            check.number("mask", self.mask, above=0, below=1)
        if self.patch_px is not None:
            check.whole("patch_px", self.patch_px, least=1)
        check.that(isinstance(self.normalise, bool), f"normalise={self.normalise!r} is neither True nor False")
        for name in ("width", "depth", "heads"):
            check.whole(name, getattr(self, name), least=1)
        check.done()
        if self.width % 4 or self.width % self.heads:
            raise BadSetting(f"mae: width={self.width} must be a multiple of 4 and of heads={self.heads}")

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """The trunk with what is needed to say pixels."""
        network: Any = getattr(trunk, "network", None)
        if not hasattr(network, "forward_features"):
            raise BadSetting("mae needs a network of timm that has forward_features: take another, or simclr")
        plain_vit = sees_patches(network)
        patch_px = self.patch_px or (network.patch_embed.patch_size[0] if plain_vit else max(1, facts.size_px // 8))
        if plain_vit and (patch_px, patch_px) != tuple(network.patch_embed.patch_size):
            raise BadSetting(f"mae: patch_px={patch_px}, but this ViT has patches of {network.patch_embed.patch_size}")
        if facts.size_px % patch_px or facts.size_px == patch_px:
            raise BadSetting(f"mae: patches of {patch_px} px do not divide {facts.size_px} px. Set patch_px")
        share = self.mask or (0.75 if plain_vit else 0.6)
        L = (facts.size_px // patch_px) ** 2
        count = min(max(round(share * L), 1), L - 1)
        if plain_vit:
            return Autoencoder(trunk, patch_px, L, count, self, facts)
        return Filled(trunk, patch_px, L, count, facts)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Error on the hidden patches."""
        model, images = cast("Autoencoder | Filled", model), batch.views[0]
        mask = hidden(len(images), model.L, model.count, batch.generator).to(images.device)
        target = patches(images, model.patch_px)
        target = normalised(target) if self.normalise else target
        return {"hidden_patches": error(model(images, mask), target, mask, model.power)}

    def after(self, model: nn.Module, batch: Batch) -> None:
        """Let BatchNorm see whole pictures now and then."""
        if isinstance(model, Filled) and batch.step % WHOLE == 0:
            model.remember(batch.views[0])


class Autoencoder(nn.Module):
    """A ViT that sees the visible patches, and a light decoder."""

    places: Tensor  # (L, W)
    power = 2

    def __init__(self, trunk: nn.Module, patch_px: int, L: int, count: int, options: Mae, facts: Facts) -> None:
        super().__init__()
        self.trunk, self.patch_px, self.L, self.count = trunk, patch_px, L, count
        generator = torch.Generator().manual_seed(facts.seed)
        W = options.width
        self.prefix = int(self.network.num_prefix_tokens)
        self.embed = linear(self.network.embed_dim, W, generator)
        self.unseen = nn.Parameter(0.02 * torch.randn(W, generator=generator))
        self.register_buffer("places", sine_places(math.isqrt(L), W), persistent=False)
        block: dict[str, Any] = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        layers = [nn.TransformerEncoderLayer(W, options.heads, 4 * W, **block) for _ in range(options.depth)]
        for weight in (w for layer in layers for w in layer.parameters() if w.dim() > 1):
            nn.init.xavier_uniform_(weight, generator=generator)
        self.decoder = nn.Sequential(*layers, nn.LayerNorm(W), linear(W, 3 * patch_px**2, generator))

    @property
    def network(self) -> Any:
        """The timm network."""
        return self.trunk.network

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """(B, 3, S, S) and (B, L) bool -> pixels of all patches (B, L, 3 p p)."""
        return self.decode(self.encode(images, mask), mask)

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """Tokens of the visible patches (B, prefix + V, D): the network's own forward pass, without the hidden ones."""
        visible = (~mask).nonzero()[:, 1].view(len(mask), -1)  # (B, V), in order
        with only(self.network, visible):
            return self.network.forward_features(images)

    def decode(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, prefix + V, D) -> (B, L, 3 p p)."""
        tokens = self.embed(tokens)  # (B, prefix + V, W)
        prefix, seen = tokens[:, : self.prefix], tokens[:, self.prefix :]
        every = (
            self.unseen.to(seen.dtype).expand(*mask.shape, -1).masked_scatter(~mask[:, :, None], seen) + self.places
        )  # (B, L, W)
        return self.decoder(torch.cat([prefix, every], 1))[:, self.prefix :]


class Filled(nn.Module):
    """Any network, on images whose hidden patches have one learned colour."""

    power = 1

    def __init__(self, trunk: nn.Module, patch_px: int, L: int, count: int, facts: Facts) -> None:
        super().__init__()
        self.trunk, self.patch_px, self.L, self.count = trunk, patch_px, L, count
        D, h = self._shape(facts.size_px)
        self.cell_px = math.ceil(facts.size_px / h)
        self.colour = nn.Parameter(torch.zeros(3, 1, 1))  # the mean colour, as images are normalised
        self.guess = linear(D, 3 * self.cell_px**2, torch.Generator().manual_seed(facts.seed))
        self.norms = [m for m in trunk.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """(B, 3, S, S) and (B, L) bool -> pixels of all patches (B, L, 3 p p)."""
        S, g = images.shape[-1], math.isqrt(self.L)
        holes = mask.view(-1, 1, g, g).repeat_interleave(self.patch_px, 2).repeat_interleave(self.patch_px, 3)
        with without_memory(self.norms):
            maps = last_maps(self.trunk.network, torch.where(holes, self.colour, images))  # (B, D, h, w)
        cells = self.guess(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, 3 c c, h, w)
        return patches(F.pixel_shuffle(cells, self.cell_px)[:, :, :S, :S], self.patch_px)

    @torch.no_grad()
    def remember(self, images: Tensor) -> None:
        """BatchNorm's moving averages, of whole images."""
        if self.norms:
            last_maps(self.trunk.network, images)

    @torch.no_grad()
    def _shape(self, size_px: int) -> tuple[int, int]:
        weight, training = next(self.trunk.parameters()), self.trunk.training
        self.trunk.eval()
        maps = last_maps(self.trunk.network, weight.new_zeros(1, 3, size_px, size_px))
        self.trunk.train(training)
        return maps.shape[1], maps.shape[2]


def sees_patches(network: Any) -> bool:
    """Whether tokens of a network are patches and nothing but patches, and it can leave some out."""
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.vision_transformer import VisionTransformer

    plain = isinstance(network, VisionTransformer) and hasattr(network, "patch_drop")
    return plain and type(network.patch_embed) is PatchEmbed  # a convolutional stem would look into hidden neighbours


class Only(nn.Module):
    """Stands where timm drops patches: keeps the prefix tokens and the named patches."""

    def __init__(self, visible: Tensor, prefix: int) -> None:
        super().__init__()
        self.visible, self.prefix = visible, prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, prefix + L, D) -> (B, prefix + V, D)."""
        B, _, D = tokens.shape
        patches = tokens[:, self.prefix :].gather(1, self.visible[:, :, None].expand(B, -1, D))
        return torch.cat([tokens[:, : self.prefix], patches], 1)


@contextlib.contextmanager
def only(network: Any, visible: Tensor) -> Iterator[None]:
    """While it lasts, the network sees only these patches (B, V)."""
    before = network.patch_drop
    network.patch_drop = Only(visible, network.num_prefix_tokens)
    try:
        yield
    finally:
        network.patch_drop = before


@contextlib.contextmanager
def without_memory(norms: list[Any]) -> Iterator[None]:
    """While it lasts, BatchNorm uses the batch as ever, but leaves its moving averages alone."""
    before = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = not norm.training
    try:
        yield
    finally:
        for norm, tracks in zip(norms, before, strict=True):
            norm.track_running_stats = tracks


def last_maps(network: Any, images: Tensor) -> Tensor:
    """(B, 3, S, S) -> the last maps (B, D, h, h), whichever way the network lays them out."""
    maps = network.forward_features(images)
    if maps.dim() == 3:  # tokens (B, prefix + h h, D)
        tokens = maps[:, getattr(network, "num_prefix_tokens", 0) :]
        h = math.isqrt(tokens.shape[1])
        maps = tokens.transpose(1, 2).unflatten(2, (h, h)) if h * h == tokens.shape[1] else maps
    elif maps.dim() == 4 and (maps.shape[1] == maps.shape[2] != maps.shape[3] or _channels_last(network)):
        maps = maps.permute(0, 3, 1, 2)
    if maps.dim() != 4 or maps.shape[2] != maps.shape[3]:
        raise BadSetting(f"mae: {type(network).__name__} ends in {tuple(maps.shape)}, not in square maps: take simclr")
    return maps


def _channels_last(network: Any) -> bool:
    return str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")


def sine_places(side: int, width: int) -> Tensor:
    """(side^2, W): sines and cosines of each patch's row and column, W / 4 frequencies from 1 to 1 / 10,000."""
    frequency = 10_000 ** -(torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side)[:, None] * frequency  # (side, W / 4)
    axis = torch.cat([angle.sin(), angle.cos()], 1)  # (side, W / 2)
    return torch.cat([axis.repeat_interleave(side, 0), axis.repeat(side, 1)], 1)
