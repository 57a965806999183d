"""What all steps of one climb have in common: the cache, the time that is left, who watches, how features are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topwork.features.extract import extract
from topwork.store import Store
from topwork.types import Backbone, Dataset, Features, Watch


@dataclass(frozen=True, eq=False)
class Terms:
    """What all steps of one climb have in common."""

    store: Store | None
    deadline: float  # a time.monotonic() that optional steps must not overrun
    watch: Watch
    run: Path | None = None  # where trainings keep what they need to go on after a kill
    seed: int = 0
    extraction: Mapping[str, Any] = field(default_factory=dict)  # options of `extract`

    @property
    def engine(self) -> str:
        """What runs frozen backbones."""
        return self.extraction.get("engine", "auto")

    def extract(self, dataset: Dataset, backbone: Backbone) -> Features:
        """Features of every item, cached."""
        return extract(dataset, backbone, self.store, progress=self.watch.progress, **self.extraction)

    def until(self, deadline: float) -> Terms:
        """The same with another deadline."""
        return dataclasses.replace(self, deadline=deadline)
