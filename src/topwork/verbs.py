"""The corridor: one short function per verb, and the only file that knows their order.

read -> inspect -> split -> plan -> climb (ladder.py) -> measure (account.py) -> write, prove, tell (saving.py)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork import live, plugins, processes, settings, wishes
from topwork.errors import BadData, BadSetting
from topwork.store import tracking
from topwork.store.database import is_database
from topwork.types import DEFAULTS, Dataset, Features, Findings, Skipped, Watch

if TYPE_CHECKING:
    from topwork.artefact.model import Model, Prediction
    from topwork.data.clean import Cleaned


def read(data: str | Path, **columns: Any) -> Dataset:
    """Read a folder or a table; what was guessed is in `notes`, what was left out in `skipped`."""
    return wishes.read(data, **columns)


def inspect(
    data: Dataset | str | Path,
    *,
    query: str | None = None,
    deep: bool | None = False,
    drop_leaks: bool | None = None,
    backbone: str = "auto",
    budget: str | float = "10m",
    seed: int = 0,
    watch: Watch | None = None,
    **extraction: Any,
) -> Findings:
    """Read every file once: unreadable ones, duplicates, leaks across splits, imbalance.

    `deep`: and with the features of a backbone wrong labels, outliers, groups that leak, shifts between splits; None:
    where they take no longer than `budget`. `drop_leaks`: training copies of what measures leave the dataset; they do,
    unless the look is deep, where nothing leaves but what cannot be read.
    """
    from topwork.data.inspect import inspect as look
    from topwork.store.cache import open_cache

    watch, store = watch or Watch(), open_cache()
    seconds = wishes.seconds_of(budget)
    dataset = data if isinstance(data, Dataset) else read(data, query=query)
    leave = drop_leaks if drop_leaks is not None else deep is False
    if deep is False:
        return look(dataset, store, progress=watch.progress, drop_leaks=leave)
    from topwork import care
    from topwork.backbones import find

    trunk = find(DEFAULTS[dataset.modality] if backbone == "auto" else backbone, dataset.modality)
    found = look(dataset, store, progress=watch.progress, drop_leaks=leave)
    return care.deepen(found, trunk, store, math.inf if deep else seconds, seed=seed, watch=watch, **extraction)


def told(dataset: Dataset, found: Findings, data: Any, query: str | None = None, *, seed: int = 0) -> dict[str, Any]:
    """What `inspect` has found in `dataset`, item by item, with a proposal for each: the numbers of findings.json."""
    from topwork import inspection

    return inspection.tell(dataset, found, **wishes.facts("inspect", seed), source=wishes.place(data, query))


def clean(
    data: Dataset | str | Path,
    out: str | Path,
    *,
    drop: str | Sequence[str] | None = None,
    apply: str | Path | Mapping[str, Any] | None = None,
    link: bool = False,
    query: str | None = None,
    item_column: str | None = None,
    label_column: str | None = None,
    backbone: str = "auto",
    seed: int = 0,
    watch: Watch | None = None,
) -> Cleaned:
    """Write a new dataset without what is wrong with the old one, which is never touched; `fit` reads `out`.

    `drop`: kinds of findings; None: unreadable, copies but no crops, leakage, conflicting_labels, blank, cut_off.
    `apply`: a findings.json of `inspect`, whose actions the user may have changed. `out`: a folder, or a .csv or
    .parquet table that names the old files. `link`: hard links instead of copies; who writes into one file then writes
    into both.
    """
    from topwork import inspection
    from topwork.data import clean as cleaning
    from topwork.data import proposals

    if drop is not None and apply is not None:
        raise BadSetting("drop and apply say both what leaves. Give one of them")
    watch, target = watch or Watch(), Path(out)
    names = proposals.USUAL if drop is None else drop.split(",") if isinstance(drop, str) else tuple(drop)
    kinds = proposals.kinds_of([name.strip() for name in names if name.strip()])
    told = inspection.read(apply) if isinstance(apply, (str, Path)) else apply
    if link and target.suffix in (".csv", ".parquet"):
        raise BadSetting(f"--link: the table {target} names the old files where they are, there is nothing to link")
    columns = {"query": query, "item_column": item_column, "label_column": label_column}
    cleaning.check_target(target, None if isinstance(data, Dataset) or is_database(data) else data)
    dataset = data if isinstance(data, Dataset) else read(data, **columns)
    cleaning.check_target(target, None, dataset.root)
    deep = told is None and bool({*kinds} & {*proposals.DEEP})
    found = inspect(dataset, deep=deep, drop_leaks=False, backbone=backbone, seed=seed, watch=watch)
    plan = inspection.plan_of_kinds(found, kinds) if told is None else inspection.plan_of(told, dataset, found)
    return inspection.write_clean(
        found, plan, target, link=link, watch=watch, source=wishes.place(data, query), command=wishes.command("clean")
    )


def redact(
    data: Dataset | str | Path,
    out: str | Path,
    *,
    how: str = "mask",
    kinds: str | Sequence[str] | None = None,
    key: str | Path | None = None,
    names: str | None = None,
    faces: str | None = None,
    watch: Watch | None = None,
    **columns: Any,
) -> dict[str, Any]:
    """Write a new dataset without what tells who is meant, and say what was found, in counts; the old one stays.

    Texts: kinds of `modalities/recognisers` are masked, or under pseudonyms that a secret `key` makes; `names`: a
    model that tells people, local:FOLDER or hf:ORG/NAME. Images: copies without metadata; `faces`: a detector as
    ONNX, local:detector.onnx, whose finds are blurred. `fit` reads `out`.
    """
    from topwork import redacting
    from topwork.data.faces import Detector

    redaction = redacting.chosen(kinds, how, key, names)
    detector = None if faces is None else Detector.of(faces)
    dataset = data if isinstance(data, Dataset) else read(data, **columns)
    return redacting.run(dataset, redaction, Path(out), detector=detector, watch=watch)


def split(dataset: Dataset, rule: str = "stratified(test=0.2)", *, seed: int = 0) -> Dataset:
    """Assign train / val / test by a rule of `data/split`."""
    return plugins.make("data.split", rule).assign(dataset, seed)


def extract(
    data: Dataset | str | Path,
    backbone: str = "auto",
    *,
    query: str | None = None,
    out: str | Path | None = None,
    batch_size: int | None = None,
    engine: str = "auto",
    watch: Watch | None = None,
) -> Features:
    """What a frozen backbone sees: one forward pass per distinct item, ever; optionally written to parquet or npz."""
    from topwork.backbones import find, fitted
    from topwork.features.extract import extract as run
    from topwork.features.write import check_suffix, write_features
    from topwork.store.cache import open_cache

    watch = watch or Watch()
    modality = wishes.modality_of("auto", data, query)
    trunk = find(DEFAULTS[modality] if backbone == "auto" else backbone, modality)
    if out is not None:
        check_suffix(Path(out))
    if engine != "torch" and modality != "row":
        trunk.graph()  # weights that do not fit, or a card that lies, end it before the data are read
    found, store = inspect(data, query=query, drop_leaks=False, watch=watch), open_cache()
    if modality == "row":
        trunk = fitted(trunk, found.dataset.inputs)
    features = run(found.dataset, trunk, store, batch_size=batch_size, engine=engine, progress=watch.progress)
    for line in (*features.choices, *store.notes):
        watch.say(str(line))
    if out is not None:
        write_features(features, found.dataset, Path(out))
    return features


def fit(
    data: str | Path | Dataset,
    *,
    query: str | None = None,
    since: str | Path | Model | None = None,
    test: str | Path | None = None,
    sources: str | Path | Dataset | Sequence[str | Path | Dataset] = (),
    source_how: str = "intermediate",
    task: str = "auto",
    backbone: str = "auto",
    steps: str | Sequence[str] = "auto",
    reduce: str | None = None,
    budget: str | float = "5m",
    metric: str = "auto",
    split: str = "auto",
    group: str | None = None,
    item_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    time_column: str | None = None,
    domain_column: str | None = None,
    redact: bool | str | Sequence[str] = False,
    keep_leaks: bool = False,
    batch_size: int | None = None,
    engine: str = "auto",
    seed: int = 0,
    track: str | None = None,
    out: str | Path | None = None,
    watch: Watch | None = None,
) -> Model:
    """Inspect, split, climb the ladder, measure, save and prove; the model lies in `out` when this returns.

    Choices are made by cross-validation on the training items; held-out items only measure. Where nothing was held
    out and the items are few, repeated nested cross-validation measures instead. Settings that cannot work stop it
    before work begins. Under torchrun or accelerate launch the processes share the work, and the first one writes.
    `track`: where loss curves go besides the report, "tensorboard" or "mlflow". `sources`: other labelled data that
    may help, learnt from before the target ("intermediate"), at the same time ("joint"), or both ways ("both").
    `since`: a model of an earlier state of the data; only what is new is extracted, and both are compared.
    `redact`: kinds of `modalities/recognisers`, or True for all: texts are masked before anything is looked at or
    kept, and the saved model masks what it is asked in the same way.
    """
    asked = wishes.Fit(
        data=data, query=query, since=since, test=test, sources=sources, source_how=source_how, task=task,
        backbone=backbone, steps=steps, reduce=reduce, budget=budget, metric=metric, split=split, group=group,
        item_column=item_column, label_column=label_column, split_column=split_column, time_column=time_column,
        domain_column=domain_column, redact=redact, keep_leaks=keep_leaks, batch_size=batch_size, engine=engine,
        seed=seed, track=track, out=out,
    )  # fmt: skip
    from topwork import fitting

    job = fitting.begin(asked, watch or Watch())
    given = fitting.read(job)
    seen = fitting.inspect(job, given)
    ground = fitting.divide(job, seen)
    way = fitting.plan(job, given, seen, ground)
    climbed = fitting.climb(job, way)
    fitting.measure_and_save(job, way, climbed)
    fitting.end(job)
    return load(job.target)


def sweep(
    specs: str | Path | Sequence[Mapping[str, Any]],
    *,
    workers: int = 2,
    out: str | Path | None = None,
    watch: Watch | None = None,
) -> list[dict[str, Any]]:
    """Run many fits in worker processes, so many at a time: their scores and folders, in the order of the list.

    A spec is a mapping of options of `fit`, with `data`, perhaps `name` and `out`; a path is a .jsonl or .toml file of
    them. What is done already is left out; a fit that fails is a row with its reason, and the others go on.
    """
    from topwork import sweeping

    if processes.started() > 1:
        raise BadSetting("topwork sweep starts its processes itself. Start it without torchrun or accelerate launch")
    if workers < 1:
        raise BadSetting(f"--workers {workers}. Expected 1 or more")
    if isinstance(specs, (str, Path)):
        listed, name = sweeping.read(Path(specs)), Path(specs).stem
    else:
        listed, name = list(specs), "fits"
    folder = Path(out) if out is not None else Path("sweeps") / name
    return sweeping.run(sweeping.plan(listed, folder), folder, workers, watch or Watch())


def pretrain(
    *data: str | Path,
    method: str | Sequence[str],
    out: str | Path,
    arch: str | None = None,
    time: str | float | None = None,
    steps: int | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    rate: float | None = None,
    seed: int = 0,
    start: str | None = None,
    probe: str | None = None,
    save_seconds: float = 60.0,
    track: str | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train a backbone on one's own images or texts and write it to `out`, for use as local:OUT; returns its card.

    Checkpoints lie in OUT.run until then: the same call goes on where a killed one was, and gives the same bits.
    """
    settings.check_plain("Pretraining keeps images, tokens and the new backbone")
    from topwork.backbones.torch_backbone import need_train

    need_train("Pretraining")
    if processes.started() > 1:
        raise BadSetting("topwork pretrain trains in one process. Start it without torchrun or accelerate launch")
    from topwork import pretraining

    methods = (method,) if isinstance(method, str) else tuple(method)
    seconds = None if time is None else wishes.seconds_of(time, "--time")
    wish = pretraining.Wish(
        tuple(map(str, data)), methods, Path(out), arch, seconds, steps, size, batch_size, rate, seed, start, probe,
        save_seconds,
    )  # fmt: skip
    pretraining.check_settings(wish)
    run = wish.out.absolute().with_name(f"{wish.out.name}.run")
    with (
        tracking.keeping(tracking.make(track), wish.out, watch or Watch()) as tracked,
        live.keeping(run, wish.out.name, tracked) as page,
    ):
        return pretraining.pretrain(wish, page.watch)


def rank(
    data: Dataset | str | Path,
    *,
    query: str | None = None,
    backbones: str | Sequence[str] = "auto",
    max_latency: str | float | None = None,
    max_size: str | float | None = None,
    sample: int = 1000,
    tolerance: float = 0.25,
    item_column: str | None = None,
    label_column: str | None = None,
    engine: str = "auto",
    seed: int = 0,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Measure backbones on a sample of the training items: numbers of each, and which one to take.

    "auto": all that lie on this machine. `max_latency` ("20ms", or seconds) is for one image on one thread;
    `tolerance` is what a faster one may cost, in points of expected accuracy.
    """
    from topwork import account, choosing
    from topwork.backbones import find
    from topwork.ground import divide
    from topwork.shortlist import Limits, available
    from topwork.store.cache import open_cache

    watch, began = watch or Watch(), time.monotonic()
    limits = Limits.of(max_latency, max_size)
    named = backbones != "auto"
    specs = [spec.strip() for spec in wishes.listed(backbones)] if isinstance(backbones, str) else list(backbones)
    if sample < choosing.LEAST or not tolerance >= 0:
        raise BadSetting(f"sample {sample}, tolerance {tolerance}: expected at least {choosing.LEAST} and 0")
    modality = wishes.modality_of("auto", data, query)
    if modality == "row":
        raise BadSetting("rows of feature columns are features already: there are no backbones to rank")
    specs = specs if named else list(available(modality=modality))
    for spec in specs if named else ():
        find(spec, modality)
    columns = {"query": query, "item_column": item_column, "label_column": label_column}
    dataset = data if isinstance(data, Dataset) else read(data, **columns)
    found, store = inspect(dataset, watch=watch), open_cache()
    ground = divide(found.dataset, "auto", seed)
    learnt = ground.dataset.take(ground.train)
    ranked = choosing.survey(
        learnt, specs, store, limits=limits, named=named, size=sample, tolerance=tolerance / 100, seed=seed,
        watch=watch, engine=engine,
    )  # fmt: skip
    for note in store.notes:
        watch.say(note)
    source = wishes.place(data, query)
    about = {"name": dataset.name, "source": source, "items": len(learnt), "classes": len(dataset.labels)}
    hashes = {"data": account.data_hash(learnt), "code": account.code_version()}
    facts = wishes.facts("rank", seed)
    return choosing.tell(ranked, **facts, data=about, hashes=hashes, seconds=time.monotonic() - began)


def extend(
    model: str | Path | Model,
    data: str | Path | Dataset,
    *,
    out: str | Path,
    test: str | Path | Dataset | None = None,
    item_column: str | None = None,
    label_column: str | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Model:
    """Teach a saved model the classes of `data` beside its own, without the data that it was made from.

    The backbone stays as it is; what the model still knows of its old classes is measured on `test`, or, without it,
    on items drawn from what it remembers of them. More items of old classes are welcome, too.
    """
    import numpy as np

    from topwork import extending, redacting
    from topwork.artefact.bundle import MARKER
    from topwork.store.atomic import check_replaceable
    from topwork.store.cache import open_cache

    watch, target = watch or Watch(), Path(out)
    opened = load(model) if isinstance(model, (str, Path)) else model
    extending.Old.of(opened)  # what cannot be extended ends it before work begins
    check_replaceable(target, MARKER)
    columns = {"item_column": item_column, "label_column": label_column, **wishes.options_of(opened)}

    def labelled(given: str | Path | Dataset) -> Dataset:
        dataset = given if isinstance(given, Dataset) else read(given, **columns)
        if dataset.multilabel or dataset.numeric:
            has = "numbers" if dataset.numeric else "lists of labels"
            raise BadData(f"{dataset.name} has {has}. Expected one label for each item")
        dataset = redacting.as_for(opened, dataset)
        rows = np.flatnonzero(dataset.table["target"].is_valid().to_numpy(zero_copy_only=False))
        return inspect(dataset.take(rows), drop_leaks=False, watch=watch).dataset

    found, asked = labelled(data), None if test is None else labelled(test)
    facts = wishes.facts("extend", seed)
    extending.extend(opened, found, asked, target, seed=seed, store=open_cache(), watch=watch, facts=facts)
    return load(target)


def load(folder: str | Path) -> Model:
    """Open a saved model; needs no torch."""
    from topwork.artefact.model import load as open_model

    return open_model(folder)


def predict(model: str | Path | Model, inputs: Any, *, top: int = 5) -> Any:
    """What a model says of a path, bytes, PIL image or array, or of a list of them."""
    return (load(model) if isinstance(model, (str, Path)) else model).predict(inputs, top=top)


def stream(model: str | Path | Model, inputs: Sequence[str], *, top: int = 5) -> Iterator[Prediction | Skipped]:
    """Predictions for files and everything inside folders, or for texts, one by one; unreadable ones are Skipped."""
    from topwork import asking

    return asking.stream(load(model) if isinstance(model, (str, Path)) else model, inputs, top)


def evaluate(
    model: str | Path | Model,
    data: str | Path | Dataset,
    *,
    query: str | None = None,
    item_column: str | None = None,
    label_column: str | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Measure a saved model on labelled data: the numbers of a report, each with its interval."""
    from topwork import asking, redacting

    opened = load(model) if isinstance(model, (str, Path)) else model
    columns = {"query": query, "item_column": item_column, "label_column": label_column, **wishes.options_of(opened)}
    dataset = data if isinstance(data, Dataset) else read(data, **columns)
    return asking.evaluate(opened, redacting.as_for(opened, dataset), wishes.place(data, query), watch or Watch())
