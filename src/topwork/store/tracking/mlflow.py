"""MLflow: an experiment named like the model, a run for every training; the server is the one that MLflow knows.

Where it is comes from `uri`, else from MLFLOW_TRACKING_URI, else MLflow decides. Numbers travel in parcels, for a
server may be far away.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topwork.store.tracking import missing

PARCEL = 500  # numbers
PATIENCE_SECONDS = 5.0  # between two parcels, if the first is not full


@dataclass(frozen=True)
class Mlflow:
    """Runs of an experiment."""

    uri: str | None = None
    experiment: str | None = None  # default: the name of OUT

    def check(self) -> None:
        """Whether the package is there."""
        try:
            import mlflow  # noqa: F401  # type: ignore[import-not-found]
        except ImportError as error:
            raise missing("mlflow", "mlflow") from error

    def open(self, out: Path) -> Runs:
        """Opens, or makes, the experiment."""
        import mlflow  # type: ignore[import-not-found]

        client = mlflow.MlflowClient(tracking_uri=self.uri)
        name = self.experiment or out.name
        known = client.get_experiment_by_name(name)
        number = known.experiment_id if known is not None else client.create_experiment(name)
        return Runs(client, name, number)


@dataclass
class Runs:
    """One run at a time: trainings come one after the other."""

    client: Any
    name: str
    experiment: str
    _training: str = ""
    _run: str = ""
    _parcel: list[Any] = field(default_factory=list, repr=False)
    _sent: float = field(default_factory=time.monotonic, repr=False)

    @property
    def where(self) -> str:
        """Name of the experiment."""
        return f"experiment '{self.name}' of MLflow"

    def __call__(self, training: str, step: int, numbers: Mapping[str, float]) -> None:
        """A metric for every number."""
        from mlflow.entities import Metric  # type: ignore[import-not-found]

        if not self._run or training != self._training:
            self.close()
            self._training = training
            self._run = self.client.create_run(self.experiment, run_name=training).info.run_id
        now = int(time.time() * 1000)
        self._parcel += [Metric(name, value, now, step) for name, value in numbers.items()]
        if len(self._parcel) >= PARCEL or time.monotonic() - self._sent > PATIENCE_SECONDS:
            self._send()

    def close(self) -> None:
        """Send what is left and end the run."""
        if self._run:
            self._send()
            self.client.set_terminated(self._run)
            self._run = ""

    def _send(self) -> None:
        for start in range(0, len(self._parcel), PARCEL):
            self.client.log_batch(self._run, metrics=self._parcel[start : start + PARCEL])
        self._parcel, self._sent = [], time.monotonic()
