"""A step for those who have the time: which tuning, with what learning rate, regulariser and augmentation (Optuna).

    one fold is kept out of everything; another one judges each trial by its log loss; the best is then trained and
    asked about the first, which is what the ladder's paired test sees

    --steps "probe,search(trials=20)"

Trials lie in RUN/search.db (SQLite): a search that was killed goes on with the trials that it had, and ends with
`trials` of them or with the budget. Trees of Parzen estimators propose: Bergstra et al., Algorithms for
Hyper-Parameter Optimization, NIPS 2011; Akiba et al., Optuna, KDD 2019.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork import finetune, plugins
from topwork.adaptation.graft import techniques
from topwork.errors import BadSetting, MissingExtra, TopworkError
from topwork.evaluation.calibrate import activate
from topwork.ground import Ground
from topwork.tasks import item_losses
from topwork.terms import Terms
from topwork.types import Dataset, Watch, digest

if TYPE_CHECKING:
    import optuna

TRIALS = 12
SHARE = 0.6  # of the time that is left, for the trials; the rest trains the best one
SCOPES = ("last_stages(1{})", "last_stages(2{})", "lp_ft(layer_decay=0.7{})")


@dataclass(frozen=True)
class Space:
    """What a trial may put together."""

    rates: tuple[float, float]  # of learning, lowest and highest
    norms: tuple[str, ...]
    besides: tuple[str, ...]
    mixes: tuple[str, ...]


SPACES = {
    "image": Space(
        (1e-4, 5e-3), ("train", "frozen"),
        ("", " + l2_sp", " + bss", " + stochnorm", " + cross_entropy(smoothing=0.1)"), ("", " + mixup", " + cutmix"),
    ),
    "text": Space(
        (1e-5, 5e-4), ("train",), ("", " + l2_sp", " + cross_entropy(smoothing=0.1)"), ("", " + token_dropout")
    ),
}  # fmt: skip


def space_of(dataset: Dataset) -> Space:
    """What suits the items; of numbers what can learn them, and Huber's loss."""
    space = SPACES[dataset.modality]
    if not dataset.numeric:
        return space

    def able(options: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(one for one in options if all("numbers" in part.goals for part in techniques(f"full{one}")))

    return dataclasses.replace(space, besides=(*able(space.besides), " + huber"), mixes=able(space.mixes))


def is_search(spec: str) -> bool:
    """Whether a step is a search."""
    return spec.partition("(")[0].strip() == "search"


def check(spec: str) -> int:
    """Number of trials; raises MissingExtra or BadSetting before any work."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingExtra.of("search", f"The step '{spec}'") from error
    _, options = plugins.parse(spec)
    trials = options.pop("trials", TRIALS)
    if options or type(trials) is not int or trials < 1:
        raise BadSetting(f"'{spec}': expected search(trials=N) with a whole number of at least 1")
    return trials


def tune(ground: Ground, spec: str, start: finetune.Start, terms: Terms) -> finetune.Tuning | str:
    """The best of the trials, asked about the fold that no trial has seen; or why there is no time."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials, began, watch = check(spec), time.monotonic(), terms.watch
    folds = np.unique(ground.folds[ground.train])
    if len(folds) < 3:
        raise BadSetting(f"search needs 3 folds: one is kept out and another one judges. Here are {len(folds)}")
    inner = dataclasses.replace(ground, train=ground.train[ground.folds[ground.train] != folds[0]])
    until = min(terms.deadline, began + SHARE * (terms.deadline - began))
    study, space = _study(ground, start, terms.run, terms.seed), space_of(ground.dataset)
    measure = "absolute error" if ground.dataset.numeric else "log loss"
    while (done := len(study.trials)) < trials:
        if time.monotonic() > until - finetune.LEAST_SECONDS:
            watch.say(f"search: the budget ends it after {done} of {trials} trials")
            break
        trial = study.ask()
        tried = _drawn(trial, space)
        slice_ends = time.monotonic() + (until - time.monotonic()) / (trials - done)
        value = _value(inner, tried, start, terms.until(slice_ends), int(folds[1]))
        if isinstance(value, str):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            watch.say(f"search: {tried}: {value}")
            continue
        study.tell(trial, value)
        watch.say(f"search, trial {done + 1} of {trials}: {measure} {value:.4g}, {tried}")
    complete = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    if not complete:
        return "left out: no trial of the search fitted into the budget (--budget)"
    best = _drawn(min(complete, key=lambda t: t.value or 0.0), space)
    watch.say(f"search: the best of {len(complete)} trials is {best}")
    return finetune.tune(ground, best, techniques(best), start, terms, asked=[int(folds[0])])


def _study(ground: Ground, start: finetune.Start, run: Path | None, seed: int) -> optuna.Study:
    """The trials so far; those of other data or another backbone are another study."""
    import optuna

    if run is not None:
        run.mkdir(parents=True, exist_ok=True)
    name = digest([start.backbone.card.key, ground.dataset.table["target"].to_pylist(), len(ground.train), seed])
    return optuna.create_study(
        storage=f"sqlite:///{run / 'search.db'}" if run is not None else None,
        study_name=name,
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
        load_if_exists=True,
    )


def _drawn(trial: Any, space: Space) -> str:
    """The spec that a trial proposes; of a finished trial: what it was."""

    def choice(name: str, options: tuple[str, ...]) -> str:
        if hasattr(trial, "suggest_categorical"):
            return trial.suggest_categorical(name, options)
        return trial.params[name]

    rate = (
        trial.suggest_float("rate", *space.rates, log=True) if hasattr(trial, "suggest_float") else trial.params["rate"]
    )
    options = f", rate={rate:.2g}, norms={choice('norms', space.norms)!r}"
    return choice("scope", SCOPES).format(options) + choice("beside", space.besides) + choice("mix", space.mixes)


def _value(inner: Ground, spec: str, start: finetune.Start, terms: Terms, fold: int) -> float | str:
    """Log loss, or mean absolute error, of the judging fold; or why this trial gives none."""
    quiet = dataclasses.replace(terms, run=None, watch=Watch(progress=terms.watch.progress))
    try:
        found = finetune.tune(inner, spec, techniques(spec), start, quiet, asked=[fold], again=False)
    except TopworkError as error:
        return str(error)
    if isinstance(found, str):
        return found
    y, activation = inner.dataset.targets()[found.rows], inner.dataset.activation
    return float(item_losses(activate(found.held_out, activation), y).mean())
