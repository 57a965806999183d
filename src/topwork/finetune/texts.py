"""Texts as the material of a tuned step: tokens read once, batches of like length, long texts window by window.

While it learns, a text is shown as one of its windows, another one at every visit: a function of (seed, visit, row).
Where it is asked, its features are the mean over all its windows, as in extraction and in the artefact. Batches are
padded to their longest window; what a frozen part gives is stored per token, without padding, if the disk has room.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from topwork.adaptation import Technique, Vocabulary
from topwork.adaptation.feed import Feed
from topwork.adaptation.graft import Grafted, Scope
from topwork.adaptation.vocabulary import vocabulary_of
from topwork.backbones.text_stages import TextStages
from topwork.errors import BadSetting
from topwork.features import text_boundary
from topwork.finetune.clock import LEAST_SECONDS, OutOfTime, agreed
from topwork.finetune.start import Start, targets_of
from topwork.ground import Ground, Rows
from topwork.modalities.image_views import uniforms
from topwork.modalities.text import Tokens, buckets
from topwork.types import Backbone, Choice, Watch, digest

AT_ONCE = 4096  # tokens per forward pass where texts are asked, padding included
CACHE_SHARE = 0.3  # of the time that is left, for the states of the frozen part


@dataclass(frozen=True, eq=False)
class Texts:
    """The windows of all texts."""

    tokens: Tokens
    first: Rows  # (N + 1,): text n has windows first[n] .. first[n + 1] - 1
    targets: NDArray[Any]
    classes: int
    width: int  # D
    key: str
    seed: int
    vocabulary: Vocabulary | None = None
    stored: text_boundary.States | None = None
    said: tuple[Choice, ...] = (Choice("views", "plain", "texts are shown as they are"),)

    @classmethod
    def of(cls, ground: Ground, _parts: Sequence[Technique], start: Start, seed: int, watch: Watch) -> Texts:
        """Read all texts."""
        dataset, card, texts = ground.dataset, start.backbone.card, ground.dataset.inputs()
        reader = reader_of(start.backbone)
        tokens = reader.read(texts)
        windows = np.bincount(tokens.owner, minlength=len(texts))
        several = int((windows > 1).sum())
        if several:
            watch.say(f"{several:,} of {len(texts):,} texts are longer than a window: another window at every visit")
        return cls(
            tokens, np.concatenate([[0], np.cumsum(windows)]),
            targets_of(ground), len(dataset.labels),
            card.features or start.x(np.arange(1)).shape[1], named(tokens), seed, vocabulary_of(reader),
        )  # fmt: skip

    @property
    def feed(self) -> Feed:
        """Tokens, or the states of the frozen part."""
        ids, weights = self.tokens.padded(np.arange(min(2, len(self.tokens.lengths))))
        if len(ids) < 2:
            ids, weights = np.repeat(ids, 2, 0), np.repeat(weights, 2, 0)
        return Feed(
            _no_frames, self.targets, 0, classes=(self.classes,), stored=self._shown, width=self.width,
            modality="text", lengths=self.tokens.lengths[self.first[:-1]], vocabulary=self.vocabulary,
            example=(torch.from_numpy(ids[:, :8]), torch.from_numpy(weights[:, :8])),
        )  # fmt: skip

    @property
    def readable(self) -> Rows:
        """All rows."""
        return np.arange(len(self.first) - 1)

    def stages(self, trunk: nn.Module, scope: Technique) -> TextStages | None:
        """The trunk's layers; None where they cannot be told apart and nobody needs them."""
        return stages_of(trunk, scope)

    def freeze(
        self,
        stages: TextStages,
        below: int,
        backbone: Backbone,
        scope: Scope,
        device: str,
        engine: str,  # noqa: ARG002
        deadline: float,
        watch: Watch,
    ) -> tuple[Texts, Choice]:
        """Run the frozen part once, if its states fit on the disk and into the time."""
        if scope.views == 0:
            return self, Choice("cached views", 0, "as asked: everything runs in every epoch")
        lower = stages.cut(below)[0].to(device)

        @torch.no_grad()
        def make(ids: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.float32]:
            x = lower(torch.from_numpy(ids).to(device), torch.from_numpy(weights).to(device))[0]
            return x.float().cpu().numpy()

        width = make(*self.tokens.padded(np.arange(1))).shape[2]
        choice = agreed(lambda: text_boundary.fits(self.tokens, width, scope.store))
        if choice.value == 0:
            return self, choice
        check_pace(self.tokens, make, deadline)
        key = digest([backbone.card.key, below, stages.layers[below], self.key, scope.store, f"torch {device}"])
        stored = text_boundary.store(key, self.tokens, width, make, dtype=scope.store, progress=watch.progress)
        return dataclasses.replace(self, stored=stored), choice

    def _shown(self, rows: Rows, visits: Rows) -> Sequence[NDArray[Any]]:
        """One window of each row."""
        return self._windows(self.window(rows, visits))

    def window(self, rows: Rows, visits: Rows) -> Rows:
        """(B,) which window is shown at a visit."""
        count = self.first[rows + 1] - self.first[rows]
        chance = uniforms(self.seed, visits, rows, 0, 1)[:, 0]
        return self.first[rows] + np.minimum((chance * count).astype(np.int64), count - 1)

    def _windows(self, windows: Rows) -> Sequence[NDArray[Any]]:
        return self.tokens.padded(windows) if self.stored is None else self.stored(windows)

    def plain(self, rows: Rows, device: str) -> list[Tensor]:
        """First windows."""
        return [torch.from_numpy(x).to(device) for x in self._windows(self.first[rows])]

    @torch.no_grad()
    def features(self, model: Grafted, rows: Rows, device: str) -> NDArray[np.float32]:
        """(len(rows), D): means over all windows of every text."""
        model.eval()
        counts = self.first[rows + 1] - self.first[rows]
        owner = np.repeat(np.arange(len(rows)), counts)
        windows = np.repeat(self.first[rows] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        found = np.zeros((len(windows), model.head.in_features), np.float32)
        for batch in buckets(self.tokens.lengths[windows], AT_ONCE):
            shown = [torch.from_numpy(x).to(device) for x in self._windows(windows[batch])]
            found[batch] = model.neck(model.trunk(*shown)).float().cpu().numpy()
        sums = np.zeros((len(rows), found.shape[1]), np.float32)
        np.add.at(sums, owner, found)
        return sums / counts[:, None].astype(np.float32)

    @torch.no_grad()
    def logits(self, model: Grafted, rows: Rows, device: str) -> NDArray[np.float32]:
        """(len(rows), C) of the mean features."""
        features = torch.from_numpy(self.features(model, rows, device)).to(device)
        return model.head(features).float().cpu().numpy()

    def whole(self, trunk: nn.Module, neck: nn.Module) -> nn.Module:
        """Trunk and neck as one trunk."""
        return trunk if isinstance(neck, nn.Identity) else Necked(trunk, neck)


class Necked(nn.Module):
    """A trunk of texts with layers behind it."""

    def __init__(self, trunk: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.trunk, self.neck = trunk, neck

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """(W, L) twice -> (W, D)."""
        return self.neck(self.trunk(ids, weights))


def reader_of(backbone: Backbone) -> Any:
    """What makes numbers of texts for it; raises BadSetting where there is no network that could be tuned."""
    reader = getattr(backbone, "reader", None)
    if reader is None:
        raise BadSetting(f"{backbone.card.spec} reads no texts. Expected a backbone of texts, such as hf:NAME")
    return reader


def stages_of(trunk: nn.Module, scope: Technique) -> TextStages | None:
    """The trunk's layers; None where they cannot be told apart and nobody needs them."""
    try:
        return TextStages.of(trunk)
    except BadSetting:
        if type(scope).__name__ == "LastStages":
            raise
        return None


def named(tokens: Tokens) -> str:
    """A name for the texts and how they were read."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in (tokens.ids, tokens.ends, tokens.owner):
        hashed.update(np.ascontiguousarray(part).tobytes())
    if tokens.weights is not None:
        hashed.update(np.ascontiguousarray(tokens.weights).tobytes())
    return hashed.hexdigest()


def check_pace(tokens: Tokens, make: text_boundary.Make, deadline: float) -> None:
    """Raise OutOfTime where the frozen part alone would eat up the time."""
    if math.isinf(deadline):
        return
    batches = list(buckets(tokens.lengths, text_boundary.AT_ONCE))
    some = batches[len(batches) // 2]
    make(*tokens.padded(some))
    began = time.monotonic()
    make(*tokens.padded(some))
    each = time.monotonic() - began
    seconds = agreed(lambda: Choice("seconds", each * len(batches), "")).value
    left = agreed(lambda: Choice("left", deadline - time.monotonic(), "")).value
    if seconds > left - LEAST_SECONDS:
        raise OutOfTime(f"the frozen part takes about {seconds:,.0f} s and the budget has {max(left, 0):,.0f} s left")


def _no_frames(*_: object) -> NDArray[np.uint8]:
    raise BadSetting("Texts have no frames")
