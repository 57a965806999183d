"""Does a short pretraining pay? Frozen features before and after it, on a set that it has not seen.

    beats_random("supervised(smoothing=0.0)", steps=100).low > 0        Comparison: after against before

Learnt from: ten textures in any two colours, over noise. Asked about: ten other textures. A texture is noise with a
spectrum of its own, the same when it is mirrored; every picture draws the noise anew.
Before: the same network at random, its batch norms settled on the same images (else it would be worse than it need be).
Both sides get the same ridge probe on the same folds; the difference is paired over items.
"""

from functools import cache

import numpy as np
import torch
from torch import nn

from topwork import plugins
from topwork.adaptation import loop, pretraining
from topwork.adaptation.feed import Feed
from topwork.adaptation.plan import Plan
from topwork.evaluation.paired import Comparison, compare_hits

CLASSES = 10
SEEN, UNSEEN = 0, 1


@cache
def textures(which: int, images: int, side_px: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, S, S, 3) and classes (N,), the classes in turn."""
    rng = np.random.default_rng([seed, which])
    along = np.abs(np.fft.fftfreq(side_px) * side_px)  # waves per side
    centres, widths = rng.uniform(1.5, 9, (CLASSES, 2)), rng.uniform(0.8, 2.0, CLASSES)
    spectra = [
        np.exp(-((along - kx) ** 2 + (along[:, None] - ky) ** 2) / (2 * w * w))
        for (kx, ky), w in zip(centres, widths, strict=True)
    ]
    y, pictures = np.arange(images) % CLASSES, []
    for label in y:
        wave = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side_px, side_px))) * spectra[label]).real
        share = 1 / (1 + np.exp(-2 * wave / wave.std()))[..., None]
        one, other = rng.uniform(0, 255, (2, 3))
        picture = share * one + (1 - share) * other + rng.normal(0, 20, (side_px, side_px, 3))
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(pictures), y


def beats_random(
    method: str,
    *,
    arch: str = "test_resnet",
    side_px: int = 32,
    steps: int = 100,
    batch: int = 64,
    rate: float = 2e-3,
    images: int = 800,
    asked: int = 400,
    seed: int = 0,
    extras: dict[str, np.ndarray] | None = None,
    source: np.ndarray | None = None,
    **options: object,
) -> Comparison:
    """How many more unseen items a probe names rightly after `steps` of the method (a spec) than before.

    `options` go to timm.create_model, `extras` and `source` to the feed (a row for each of the `images`).
    """
    (x, y), (new, classes) = (textures(which, n, side_px, seed) for which, n in ((SEEN, images), (UNSEEN, asked)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two wait for each other on a busy machine
    try:
        before = right(settled(trunk_of(arch, seed, options), x[:256]), new, classes)
        sources = 1 if source is None else int(source.max()) + 1
        feed = Feed(lambda rows, _: x[rows], y, side_px, source, (CLASSES,) * sources, extras or {})
        plan = Plan(steps=steps, batch=batch, rate=rate, seed=seed)
        after = loop.train(trunk_of(arch, seed, options), [plugins.make(pretraining.ROOM, method)], feed, plan)
        return compare_hits(before, right(after, new, classes))
    finally:
        torch.set_num_threads(threads)


def right(trunk: nn.Module, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) whether a probe on frozen features names each item rightly, fitted without the item's fold."""
    with torch.no_grad():
        features = trunk.eval()(pixels(x)).numpy()
    folds = np.arange(len(y)) // CLASSES % 5
    probe = plugins.make("adaptation.probe", "ridge").solve(features, y.astype(np.int32), folds, CLASSES)
    return probe.held_out.argmax(1) == y


def trunk_of(arch: str, seed: int = 0, options: dict | None = None) -> nn.Module:
    """A random trunk, the same for the same seed."""
    import timm

    from topwork.backbones.trunk import TimmTrunk

    torch.manual_seed(seed)
    return TimmTrunk(timm.create_model(arch, pretrained=False, num_classes=0, **(options or {})))


def settled(trunk: nn.Module, x: np.ndarray) -> nn.Module:
    """Batch norms that have seen these images; nothing is learnt."""
    with torch.no_grad():
        for _ in range(20):
            trunk.train()(pixels(x))
    return trunk


def pixels(x: np.ndarray) -> torch.Tensor:
    """uint8 (N, S, S, 3) -> (N, 3, S, S) in -1..1."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1
