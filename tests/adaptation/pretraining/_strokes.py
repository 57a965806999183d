"""Does a short pretraining without labels pay? Learnt from random strokes, asked about handwritten digits.

    beats_random("simclr", steps=100).low > 0             Comparison: after against before

Learnt from: grey pictures of random broken lines, with noise. All are equally bright, so that nothing but their shape
tells them apart: with colours, or a contrast of its own for every picture, objectives that tell pictures (or groups of
pictures) apart learn those first.
Asked about: scikit-learn's 1,797 handwritten digits, each at its own place, size, angle and contrast, with noise.
Before: the same network at random, its batch norms settled on the strokes (else it would be worse than it need be).
Both sides get the same ridge probe on the same folds; the difference is paired over items.
"""

from functools import cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from topwork import plugins
from topwork.adaptation import loop, pretraining
from topwork.adaptation.feed import Feed
from topwork.adaptation.plan import Plan
from topwork.evaluation.paired import Comparison, compare_hits

from ._effect import right, settled, trunk_of

SIDE_PX = 32
FRAME_PX = 40


@cache
def strokes(images: int, seed: int) -> np.ndarray:
    """uint8 (N, P, P, 3): lines of two to five pieces."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(np.arange(FRAME_PX), np.arange(FRAME_PX)), 2) / FRAME_PX  # (P, P, 2)
    pictures = np.empty((images, FRAME_PX, FRAME_PX), np.uint8)
    for i in range(images):
        corners = rng.uniform(0.15, 0.85, (rng.integers(3, 7), 2))
        distance = np.full((FRAME_PX, FRAME_PX), np.inf)
        for a, b in pairwise(corners):
            along = (((at - a) @ (b - a)) / ((b - a) @ (b - a))).clip(0, 1)[..., None]
            distance = np.minimum(distance, np.linalg.norm(at - a - along * (b - a), axis=2))
        ink = 1 / (1 + np.exp((distance - 0.04) * 1.5 * FRAME_PX))
        pictures[i] = (40 + 170 * ink + rng.normal(0, 10, ink.shape)).clip(0, 255)
    return np.repeat(pictures[..., None], 3, 3)


@cache
def digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (1797, S, S, 3) and classes (1797,)."""
    x, y = load_digits(return_X_y=True)
    rng, N = np.random.default_rng([seed, 1]), len(y)
    size, angle, places = rng.uniform(1.0, 1.8, N), rng.uniform(-0.4, 0.4, N), rng.uniform(-0.4, 0.4, (N, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    theta = np.concatenate([size[:, None, None] * turn, places[..., None]], 2)  # (N, 2, 3)
    ink = torch.from_numpy(x.reshape(-1, 1, 8, 8) / 16)
    ink = F.interpolate(ink, size=(SIDE_PX, SIDE_PX), mode="bicubic").clamp(0, 1)
    grid = F.affine_grid(torch.from_numpy(theta), [N, 1, SIDE_PX, SIDE_PX], align_corners=False)
    ink = F.grid_sample(ink, grid, align_corners=False).numpy()[:, 0]
    dark, bright = rng.uniform(0, 0.3, (N, 1, 1)), rng.uniform(0.6, 1, (N, 1, 1))
    pictures = dark + (bright - dark) * ink + rng.normal(0, 0.06, ink.shape)
    return np.repeat((255 * pictures.clip(0, 1)).astype(np.uint8)[..., None], 3, 3), y


def beats_random(
    method: str, *, steps: int, arch: str = "test_resnet", batch: int = 64, rate: float = 2e-3, images: int = 1500,
    seed: int = 0, **options: object,
) -> Comparison:  # fmt: skip
    """How many more digits a probe names rightly after `steps` of the method than before; `options` go to timm."""
    x, edge = strokes(images, seed), (FRAME_PX - SIDE_PX) // 2
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two wait for each other on a busy machine
    try:
        middle = x[:256, edge : edge + SIDE_PX, edge : edge + SIDE_PX]
        before = right(settled(trunk_of(arch, seed, options), middle), *digits(seed))
        feed = Feed(lambda rows, _: x[rows], np.full(images, -1), SIDE_PX)
        plan = Plan(steps=steps, batch=batch, rate=rate, seed=seed)
        after = loop.train(trunk_of(arch, seed, options), [plugins.make(pretraining.ROOM, method)], feed, plan)
        return compare_hits(before, right(after, *digits(seed)))
    finally:
        torch.set_num_threads(threads)
