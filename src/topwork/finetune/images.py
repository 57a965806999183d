"""Images as the material of a tuned step: decoded once, shown as crops, perhaps mirrored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from topwork.adaptation import Technique
from topwork.adaptation.feed import Feed
from topwork.adaptation.graft import Grafted, Scope
from topwork.backbones.stages import Stages
from topwork.features import boundary, contents
from topwork.features.frames import Frames, frames
from topwork.finetune import frozen_part, views
from topwork.finetune.start import BATCH, Start, targets_of
from topwork.ground import Ground, Rows
from topwork.types import Backbone, Choice, Watch


@dataclass(frozen=True, eq=False)
class Images:
    """Frames, and the views that are drawn of them."""

    frames: Frames
    feed: Feed
    view: Choice
    seed: int
    stored: boundary.Stored | None = None

    @classmethod
    def of(cls, ground: Ground, parts: Sequence[Technique], start: Start, seed: int, watch: Watch) -> Images:
        """Decode, and choose the views."""
        dataset, card = ground.dataset, start.backbone.card
        p, found = card.preprocess, contents.distinct(dataset)
        images = frames(dataset, found, p.resize_px, progress=watch.progress, like=p)
        feed = Feed(
            lambda rows, _: images(rows), targets_of(ground), p.crop_px,
            classes=(len(dataset.labels),), mean=p.mean, std=p.std, recipes=views.recipes(p), width=card.features,
        )  # fmt: skip
        named = next((v for v in (getattr(part, "view", None) for part in parts) if v), None)
        chosen = Choice("views", named, "as asked") if named else views.choose(ground, start, images, feed, seed)
        watch.say(str(chosen))
        return cls(images, feed, chosen, seed)

    @property
    def key(self) -> str:
        """Names contents and geometry."""
        return self.frames.key

    @property
    def said(self) -> tuple[Choice, ...]:
        """The views."""
        return (self.view,)

    @property
    def readable(self) -> Rows:
        """Rows whose image could be decoded."""
        return np.flatnonzero(self.frames.index >= 0)

    def stages(self, trunk: nn.Module, scope: Technique) -> Stages | None:
        """The trunk's layers; None where they cannot be told apart and nobody needs them."""
        return frozen_part.stages_of(trunk, self.feed.size_px, scope)

    def freeze(
        self,
        stages: Stages,
        below: int,
        backbone: Backbone,
        scope: Scope,
        device: str,
        engine: str,
        deadline: float,
        watch: Watch,
    ) -> tuple[Images, Choice]:
        """Run the frozen part, once per view."""
        stored, choice = frozen_part.cache(
            stages, below, self.frames, self.feed, self.view.value, backbone, scope, device, engine, self.seed,
            deadline, watch,
        )  # fmt: skip
        if stored is None:
            return self, choice
        return dataclasses.replace(self, stored=stored, feed=dataclasses.replace(self.feed, stored=stored)), choice

    def plain(self, rows: Rows, device: str) -> list[Tensor]:
        """Centre crops, or what is stored of them."""
        if self.stored is not None:
            return [torch.from_numpy(x).to(device) for x in self.stored.plain(rows)]
        return [views.shown(self.frames, self.feed, rows, 0, "plain", self.seed).to(device)]

    def features(self, model: Grafted, rows: Rows, device: str) -> NDArray[np.float32]:
        """(len(rows), D)."""
        return self._asked(model, rows, device)[0]

    def logits(self, model: Grafted, rows: Rows, device: str) -> NDArray[np.float32]:
        """(len(rows), C)."""
        return self._asked(model, rows, device)[1]

    @torch.no_grad()
    def _asked(self, model: Grafted, rows: Rows, device: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        model.eval()
        head = model.head
        features = [np.zeros((0, head.in_features), np.float32)]
        logits = [np.zeros((0, head.out_features), np.float32)]
        for start in range(0, len(rows), BATCH):
            answer = model(*self.plain(rows[start : start + BATCH], device))
            features.append(answer.features.float().cpu().numpy())
            logits.append(answer.logits.float().cpu().numpy())
        return np.concatenate(features), np.concatenate(logits)

    def whole(self, trunk: nn.Module, neck: nn.Module) -> nn.Module:
        """Trunk and neck as one trunk."""
        return trunk if isinstance(neck, nn.Identity) else nn.Sequential(trunk, neck)
