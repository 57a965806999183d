"""From images to a backbone of one's own: read, decode once, train, ask whether it was worth it, write.

Texts go the same way in `language.py`; what follows is that of images.

material.gather          folders, tables, fractals:      -> Material: items, targets, content hash
checks                   methods, architecture, size     everything that can be wrong, before any work
material.frames          every file once                 -> uint8 (U, P, P, 3) in the cache
features.extract         a teacher, where one is named   -> features of every item, once
rehearsal.pace           a few real steps                -> number of steps that fit into --time
loop.train               OUT.run/                        resumable after any death, to the bit
scores                   a probe on a set not learnt from: the trunk against its random self
backbones.folder_write   OUT/                            card.json, model.safetensors: local:OUT
"""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from topwork import plugins, settings
from topwork.account import code_version
from topwork.adaptation import Method, loop, pretraining, rehearsal
from topwork.adaptation.feed import Feed
from topwork.adaptation.plan import Plan
from topwork.adaptation.together import width_of
from topwork.backbones import find, folder_write
from topwork.backbones.trunk import TimmTrunk
from topwork.errors import BadData, BadSetting, StoreError, UnknownName
from topwork.features.extract import extract
from topwork.modalities.image_views import RECIPES
from topwork.nn.threads import on_threads
from topwork.pretraining.material import Material, gather
from topwork.pretraining.network import Network
from topwork.pretraining.probe import Probe
from topwork.store.atomic import write_file
from topwork.store.cache import open_cache
from topwork.store.runs import Run
from topwork.store.runs import check as check_run
from topwork.types import Choice, Watch

if TYPE_CHECKING:
    from topwork.pretraining.encoder import Encoder

SIZE_PX = 96
BATCH, GPU_BATCH = 64, 256
RATE, RATE_AT = 1.2e-3, 128  # AdamW's peak for a batch of so many items; it grows with the root of the batch
FEWEST = 8  # items
FRAME = 1.25  # side of a frame, of the side that the trunk sees: crops keep some detail
SHORTEST_SECONDS = 20.0  # of training that are worth a budget


@dataclass(frozen=True)
class Wish:
    """What was asked for; None is left to us."""

    data: tuple[str, ...]
    methods: tuple[str, ...]
    out: Path
    arch: str | None = None
    seconds: float | None = None
    steps: int | None = None
    size_px: int | None = None  # side of images, None: SIZE_PX; of texts the tokens of a window
    batch: int | None = None
    rate: float | None = None
    seed: int = 0
    start: str | None = None
    probe: str | None = None
    save_seconds: float = 60.0


def pretrain(wish: Wish, watch: Watch) -> dict[str, Any]:
    """Train and write the backbone; returns its card. The same command goes on where a killed one was."""
    began = time.monotonic()
    methods = _methods(wish)
    if any(method.modality == "text" for method in methods):
        from topwork.pretraining import language

        return language.pretrain(wish, methods, watch)
    wish = dataclasses.replace(wish, size_px=wish.size_px or SIZE_PX)
    assert wish.size_px is not None
    small_views = any(RECIPES[view].scale != 1 for method in methods for view in method.views)
    network = Network.of(wish.arch, wish.start, wish.size_px, small_views)
    material, notes = gather(wish.data, any(method.needs_labels for method in methods))
    choices = _choices(wish, material)
    plan = Plan(
        steps=wish.steps or 1, batch=choices["batch size"].value, rate=choices["learning rate"].value,
        precision="no" if choices["device"].value == "cpu" else "bf16", device=choices["device"].value, seed=wish.seed,
    )  # fmt: skip
    _check_methods(methods, material, network, wish, plan)
    asked = {
        "data": material.hash(), "methods": list(wish.methods), "architecture": network.call, "size": wish.size_px,
        "start": network.start.weights if network.start else None, "probe": wish.probe, "steps": wish.steps,
        "time": wish.seconds, "seed": wish.seed, "batch": plan.batch, "rate": plan.rate, "device": plan.device,
    }  # fmt: skip
    folder = wish.out.absolute().with_name(f"{wish.out.name}.run")
    going_on = check_run(folder, asked)
    probe = Probe.of(wish.probe, material, wish.size_px, watch)
    for line in (*notes, *choices.values()):
        watch.say(str(line))
    with Run(folder, asked, wish.save_seconds) as run:
        if going_on:
            watch.say(f"going on with the training in {folder}")
        material, draw, skipped = material.frames(choices["frames"].value, wish.seed, watch.progress)
        if skipped:
            watch.say(f"{len(skipped):,} images skipped, e.g. {skipped[0].item}: {skipped[0].reason}")
        feed = Feed(draw, material.targets, wish.size_px, material.source, material.classes,
                    _extras(methods, material, watch), network.mean, network.std)  # fmt: skip
        left = None if wish.seconds is None else wish.seconds - (time.monotonic() - began)
        plan, threads = decide(run, plan, network, methods, feed, left, watch)
        with on_threads(threads):
            trunk = loop.train(network.trunk(wish.seed), methods, feed, plan, run, watch)
            plan = dataclasses.replace(plan, parts=run.decided.get("parts", plan.parts))
            scores = probe.scores(trunk.cpu(), network, wish.seed, watch)
        losses = mean_of_last(run.read_log())
        facts = {
            "name": wish.out.name,
            "method": {
                "spec": list(wish.methods),
                **{k: v for k, v in dataclasses.asdict(plan).items() if k != "device"},
            },
            "trained_on": " + ".join(f"{part.dataset.name} ({len(part):,} images)" for part in material.parts),
            "data": {
                "hash": asked["data"],
                "items": len(material),
                "sources": [part.fact() for part in material.parts],
            },
            "start": dataclasses.asdict(network.start) if network.start else None,
            "seconds": round(run.elapsed(), 1),
            "machine": machine(plan.device, threads),
            "seed": wish.seed,
            "losses": losses,
            "scores": scores,
            "source": "topwork pretrain",
            "code": code_version(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        assert isinstance(trunk, TimmTrunk)
        folder_write.write(wish.out, trunk.network, network.call, network.preprocess, facts)
        write_file(wish.out / "log.jsonl", (folder / "log.jsonl").read_bytes())
        run.remove()
    return facts


def _methods(wish: Wish) -> tuple[Method, ...]:
    made = tuple(plugins.make(pretraining.ROOM, spec) for spec in wish.methods)
    if not made:
        raise BadSetting(f"No --method. Expected one or more of: {', '.join(plugins.names(pretraining.ROOM))}")
    for method in made:
        if unknown := [name for name in method.views if name not in RECIPES]:
            raise UnknownName.among(unknown[0], "modalities.image_views", RECIPES)
    return made


def check_settings(wish: Wish) -> None:
    """What can be wrong with the wish alone; costs nothing."""
    if (wish.seconds is None) == (wish.steps is None):
        raise BadSetting("Expected either --time, such as 60m, or --steps, such as 5000")
    problems = [
        f"--{name} {value} is less than {least}"
        for name, value, least in (
            ("steps", wish.steps, 1), ("size", wish.size_px, 16), ("batch-size", wish.batch, 2),
            ("time", wish.seconds, 1),
        )
        if value is not None and value < least
    ]  # fmt: skip
    if wish.rate is not None and not 0 < wish.rate < float("inf"):
        problems.append(f"--rate {wish.rate} is not a positive number")
    if wish.seconds == float("inf"):
        problems.append("--time none never ends")
    if problems:
        raise BadSetting("; ".join(problems))
    if wish.out.exists() and (not wish.out.is_dir() or any(wish.out.iterdir())):
        what = "holds a finished backbone" if (wish.out / folder_write.MARKER).exists() else "exists and is not empty"
        raise StoreError(f"{wish.out} {what}. Choose another --out, or remove it")


def _check_methods(methods: Sequence[Method], material: Material, network: Network, wish: Wish, plan: Plan) -> None:
    """Methods against data and network: what each says when it is asked to prepare."""
    N = len(material)
    if N < FEWEST:
        raise BadData(f"{N} images. Expected at least {FEWEST} to learn from")
    if plan.batch > N:
        raise BadSetting(f"--batch-size {plan.batch} is more than the {N:,} images that there are")
    wanted: dict[str, str] = {}
    for method in methods:
        for name, spec in method.extras.items():
            material.files()
            find(spec)
            if wanted.setdefault(name, spec) != spec:
                raise BadSetting(f"Two methods want different teachers: {wanted[name]} and {spec}. Choose one")
    feed = Feed(lambda rows, _: np.zeros((len(rows), 8, 8, 3), np.uint8), material.targets, (wish.size_px or SIZE_PX),
                material.source, material.classes)  # fmt: skip
    trunk = network.trunk(wish.seed)
    facts = feed.facts(width_of(trunk, (wish.size_px or SIZE_PX)), wish.steps or 1000, wish.seed)
    for method in methods:
        if not method.extras:  # what it wants to know of them is not there yet
            method.prepare(network.trunk(wish.seed), facts)


def _choices(wish: Wish, material: Material) -> dict[str, Choice]:
    """What we choose, each with its reason."""
    found = device()
    if wish.batch:
        batch = Choice("batch size", wish.batch, "as asked")
    else:
        most = BATCH if found.value == "cpu" else GPU_BATCH
        size = min(most, len(material))
        why = (
            "all images that there are"
            if size < most
            else f"good on {'a processor' if found.value == 'cpu' else 'a GPU'}"
        )
        batch = Choice("batch size", size, why)
    rate = Choice("learning rate", wish.rate, "as asked")
    if wish.rate is None:
        value = RATE * (batch.value / RATE_AT) ** 0.5 * (0.5 if wish.start else 1.0)
        why = f"{RATE:g} at a batch of {RATE_AT}, growing with its root" + (
            ", halved: it goes on" if wish.start else ""
        )
        rate = Choice("learning rate", float(f"{value:.2g}"), why)
    side = int(FRAME * (wish.size_px or SIZE_PX))
    own = material.short_side_px()
    frame = Choice("frames", side, f"{FRAME:g} times the input, so that crops keep some detail")
    if material.drawn:
        frame = Choice("frames", (wish.size_px or SIZE_PX), "as large as the input: they are drawn anew every time")
    elif own < side:
        frame = Choice("frames", max(own, 16), "the images are no larger")
    size = Choice(
        "input size",
        (wish.size_px or SIZE_PX),
        "a trade between detail and steps" if (wish.size_px or SIZE_PX) == SIZE_PX else "as asked",
    )
    return {choice.name: choice for choice in (found, size, frame, batch, rate)}


def device() -> Choice:
    """Where it is trained."""
    named = os.environ.get("TOPWORK_DEVICE", "")
    if named:
        return Choice("device", named, "TOPWORK_DEVICE")
    found = torch.accelerator.current_accelerator(check_available=True)
    return (
        Choice("device", found.type, "torch sees it") if found else Choice("device", "cpu", "torch sees no accelerator")
    )


def _extras(methods: Sequence[Method], material: Material, watch: Watch) -> dict[str, NDArray[np.float32]]:
    """What methods want to know of every item: features of frozen backbones, computed once per distinct image."""
    found = {}
    for name, spec in {k: v for method in methods for k, v in method.extras.items()}.items():
        features = extract(material.files(), find(spec), open_cache(), progress=watch.progress)
        if features.skipped:
            raise BadData(f"{features.skipped[0].item}: {features.skipped[0].reason}")
        watch.say(f"{name} {spec}: {features.computed:,} forward passes, {features.cached:,} from the cache")
        found[name] = features.x
    return found


def decide(
    run: Run,
    plan: Plan,
    network: Network | Encoder,
    methods: Sequence[Method],
    feed: Feed,
    left: float | None,
    watch: Watch,
) -> tuple[Plan, int]:
    """Number of steps and of threads, measured once and then kept with the run."""
    if "threads" not in run.decided:
        began = time.monotonic()
        most = settings.threads()
        tried = (1,) if plan.device != "cpu" or most.value == 1 else (1, most.value)
        measured = {}
        if left is not None or len(tried) > 1:
            for threads in tried:
                with on_threads(threads):
                    measured[threads] = rehearsal.pace(
                        lambda: network.trunk(0), methods, feed, plan, min(5.0, (left or 100) / 20)
                    )
        threads = min(measured, key=measured.__getitem__) if measured else 1
        if measured:
            paces = ", ".join(f"{plan.batch / s:,.0f} {feed.modality}s/s with {n}" for n, s in measured.items())
            watch.say(str(Choice("threads", threads, f"{paces}, on real steps")))
        steps = plan.steps
        if left is not None:
            left = max(left - (time.monotonic() - began), 1.0)
            steps = max(1, int(left / measured[threads]))
            why = f"{measured[threads]:.3g} s each fill the {left:.0f} s that are left of --time"
            watch.say(str(Choice("steps", steps, why)))
        run.decide(steps=steps, threads=threads)
    kept = run.decided
    return dataclasses.replace(plan, steps=kept["steps"]), kept["threads"]


def mean_of_last(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of every loss term over the last tenth of the training."""
    last = lines[-max(1, len(lines) // 10) :]
    names = [name for name in (last[0] if last else {}) if name not in ("step", "rate", "seconds")]
    return {name: float(np.mean([line[name] for line in last])) for name in names}


def machine(device: str, threads: int) -> str:
    """What it was trained on, in words."""
    if device != "cpu":
        return f"{torch.cuda.get_device_name()} ({device})" if device.startswith("cuda") else device
    return f"{platform.machine()}, {os.cpu_count()} processors, {threads} threads"
