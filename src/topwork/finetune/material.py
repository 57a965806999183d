"""What a tuned step learns from, and all that depends on its modality; `images.py` and `texts.py` are one each.

    material.feed             items as a network is shown them in a training             adaptation.feed.Feed
    material.stages(trunk)    its layers, where they can be told apart                    Stages or TextStages
    material.freeze(...)      what lies below a boundary runs now and is stored           -> a material that reads it
    material.features(...)    (B, D) of some rows without augmentation, by a trained model
    material.logits(...)      (B, C) of the same

Everything else about folds, pace, trainings, resume, proofs and shipping is `bench.py`, and alike for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation import Technique
from topwork.adaptation.feed import Feed
from topwork.finetune.start import Start
from topwork.ground import Ground, Rows
from topwork.types import Backbone, Choice, Watch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from topwork.adaptation.graft import Grafted, Scope
    from topwork.backbones.stages import Stages
    from topwork.backbones.text_stages import TextStages


class Material(Protocol):
    """Items of one modality, as the network of a tuned step sees them."""

    @property
    def feed(self) -> Feed:
        """All rows; what is stored of them instead of the items themselves, where a part is frozen."""
        ...

    @property
    def key(self) -> str:
        """Names contents and how they are read."""
        ...

    @property
    def readable(self) -> Rows:
        """Rows that can be learnt from."""
        ...

    @property
    def said(self) -> tuple[Choice, ...]:
        """What was chosen, each with its reason."""
        ...

    @property
    def stored(self) -> Any | None:
        """The activations of the frozen part, where they are read instead of the items."""
        ...

    def stages(self, trunk: nn.Module, scope: Technique) -> Stages | TextStages | None:
        """The trunk's layers; None where they cannot be told apart and nobody needs them."""
        ...

    def freeze(
        self,
        stages: Any,
        below: int,
        backbone: Backbone,
        scope: Scope,
        device: str,
        engine: str,
        deadline: float,
        watch: Watch,
    ) -> tuple[Material, Choice]:
        """The material above a boundary; itself where nothing is cached. Raises OutOfTime."""
        ...

    def plain(self, rows: Rows, device: str) -> list[Tensor]:
        """What goes into the trained part for some rows, without augmentation; of long texts their first window."""
        ...

    def features(self, model: Grafted, rows: Rows, device: str) -> NDArray[np.float32]:
        """(len(rows), D), as the head reads them."""
        ...

    def logits(self, model: Grafted, rows: Rows, device: str) -> NDArray[np.float32]:
        """(len(rows), C)."""
        ...

    def whole(self, trunk: nn.Module, neck: nn.Module) -> nn.Module:
        """Trunk and neck as one trunk."""
        ...


def material(ground: Ground, parts: Sequence[Technique], start: Start, seed: int, watch: Watch) -> Material:
    """The items of a ground, decoded or read."""
    if ground.dataset.modality == "text":
        from topwork.finetune.texts import Texts as Kind
    else:
        from topwork.finetune.images import Images as Kind
    return Kind.of(ground, parts, start, seed, watch)
