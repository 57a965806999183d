"""How items are shown to a network that is tuned: crops, mirrored or not, plain where it is asked."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topwork.adaptation.feed import Feed
from topwork.features.frames import Frames
from topwork.finetune.clock import agreed
from topwork.finetune.start import BATCH, Start
from topwork.ground import Ground, Rows
from topwork.mirrors import choose_view
from topwork.modalities import image_views
from topwork.modalities.image_views import Recipe
from topwork.nn.session import session
from topwork.types import Choice, Preprocess


def recipes(p: Preprocess) -> dict[str, Recipe]:
    """The views, "plain" being what the backbone will be asked with."""
    share = (p.crop_px / p.resize_px) ** 2
    plain = Recipe(area=(share, share), ratio=1.0, centred=True)
    return {**image_views.RECIPES, "plain": plain}


def choose(ground: Ground, start: Start, images: Frames, feed: Feed, seed: int) -> Choice:
    """Mirrored or not, by asking the frozen backbone."""
    rows = np.intersect1d(ground.train, np.flatnonzero(images.index >= 0))
    running = session(start.backbone.graph())

    def ask(some: Rows, mirrored: bool) -> NDArray[np.float32]:
        found = []
        for begin in range(0, len(some), BATCH):
            x = shown(images, feed, some[begin : begin + BATCH], 0, "plain", seed)
            found.append(np.asarray(running.run(None, {"images": (x.flip(3) if mirrored else x).numpy()})[0]))
        return np.concatenate(found)

    return agreed(lambda: choose_view(rows, ground.dataset.targets()[rows], ground.folds[rows], ask, seed))


def shown(images: Frames, feed: Feed, rows: Rows, visit: int, view: str, seed: int) -> Tensor:
    """One view of some rows, (B, 3, S, S)."""
    return image_views.view(
        torch.from_numpy(images(rows)), feed.recipes[view], feed.size_px, seed=seed, visits=np.full(len(rows), visit),
        rows=rows, number=0, mean=feed.mean, std=feed.std,
    )  # fmt: skip
