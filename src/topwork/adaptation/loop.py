"""The one training loop: methods ask, accelerate runs, the run remembers.

    L(step) = sum over methods and terms          AdamW or SGD, warm-up and cosine, clipped, perhaps averaged weights

A step depends on its number alone: order, views, dropout and learning rate are functions of (seed, step), and
everything else that lasts is a tensor in the checkpoint. So a training that was killed and taken up again gives the
bits of one that was not (one process, the same machine and number of threads).

Several processes (torchrun, accelerate launch) share every batch: the loss of each counts by its items, batch norms
see the items of all, and gradients are averaged, so that a step is that of one process with the whole batch, up to
rounding. What is drawn inside a loss (dropout, mixing) is drawn anew in each. The first process keeps the run; the
others take from it what it remembers.

Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019 (AdamW).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, patch_environment
from torch import Tensor, nn

from topwork import processes
from topwork.adaptation import Batch, Method, sharded
from topwork.adaptation.feed import Feed, Setup, seed_of
from topwork.adaptation.parts import Supply, free, ran_out, twice
from topwork.errors import BadSetting
from topwork.nn import shared_norm
from topwork.nn.ema import Ema, tensors_of
from topwork.nn.schedule import warm_cosine
from topwork.store.runs import Run
from topwork.types import Watch

FLUSH_SECONDS = 1.0  # between two looks at the losses: each look waits for a GPU


@dataclass(frozen=True)
class Plan:
    """Everything that shapes a training, apart from its methods and its data."""

    steps: int
    batch: int = 64  # items per step, all processes together
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    rate: float = 1e-3  # peak learning rate
    weight_decay: float = 0.05  # not for biases and norms
    momentum: float = 0.9  # of sgd
    warmup: float = 0.05  # share of the steps
    clip: float = 3.0  # largest norm of the gradient
    parts: int = 1  # a batch is worked on in so many parts: less memory, the same step
    ema: float = 0.999  # of the weights that are handed back; 0: the last ones
    precision: Literal["no", "bf16"] = "no"
    device: str = "cpu"  # or what torch calls its accelerator
    seed: int = 0


def train(
    trunk: nn.Module,
    methods: Sequence[Method],
    feed: Feed,
    plan: Plan,
    run: Run | None = None,
    watch: Watch | None = None,
    judge: Judge | None = None,
    stage: str = "pretrain",
    lines: int = 10,
) -> nn.Module:
    """Train `trunk`, (B, 3, S, S) -> (B, D), by all methods at once, from where `run` was left.

    Gives back what the first method makes of it: the trunk, or a trunk with a head. With a judge, the weights of the
    moment that it liked best. `lines`: how often it says on the way how it does; 1: at its end alone.
    """
    processes.together()
    watch, accelerator = watch or Watch(), _accelerator(plan, waits=any(method.waits for method in methods))
    spare = copy.deepcopy(trunk) if sharded.asked() else None  # the trunk itself stays whole
    final = whole = Together.of(trunk, methods, feed, plan)
    if spare is not None:
        whole = sharded.laid_out(Together.of(spare, methods, feed, plan))
    if judge is not None:
        final.to(accelerator.device)
    plain = optimizer_of(whole, plan, whole.rates())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # accelerate names an option of torch by its older name
        model, optimizer = accelerator.prepare(whole, plain)
    average = Ema(whole, plan.ema)
    patience = Patience(whole, average, judge, final)
    memory = Memory(whole, average, plain, patience)
    first = memory.restore(run)
    setup = Setup(plan.steps, plan.batch, plan.seed, plan.parts, str(accelerator.device),
                  accelerator.process_index, accelerator.num_processes)  # fmt: skip
    model.train()
    learning = any(m.training for m in whole.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    supply = Supply(feed, methods, setup, run, least=1 + learning)
    work = Work(whole, model, optimizer, accelerator, plan)
    with (
        processes.losing(),
        warnings.catch_warnings(),
        _stop_between_steps() as stop,
        contextlib.closing(supply),
    ):
        warnings.filterwarnings("ignore", "Grad strides", UserWarning)  # of 1 x 1 convolutions, where they are the same
        if setup.processes > 1 and spare is None and first < plan.steps:
            while (why := work.short(supply, first)) is not None:
                watch.say(f"{stage}, {supply.twice(why)}")
            first = memory.restore(run)
        log = Log(run, watch, plan, first, stage, lines, f"{feed.modality}s")
        supply.begin(first)
        for step, parts in supply if not patience.over else ():
            rate = plan.rate * warm_cosine(step, plan.steps, plan.warmup)
            for group in plain.param_groups:
                group["lr"] = rate * group["multiple"]
            why = work.step(step, rate, parts, log)
            if why is not None:  # memory ran out: from the last state again, in smaller parts
                watch.say(f"{stage}, {supply.twice(why)}")
                first = memory.restore(run)
                log = Log(run, watch, plan, first, stage, lines, f"{feed.modality}s")
                supply.begin(first)
                continue
            whole.after(parts[-1])
            average.update(step)
            watch.progress(stage, step + 1, plan.steps)
            enough = patience.enough(step)
            last = enough or step + 1 == plan.steps
            stopped, save, due = processes.agreed(stop.asked, last or bool(run and run.due()), log.due())
            log.flush(step + 1, stopped or save or due, last)
            if stopped or save:
                kept = memory.tensors()
                if run:
                    run.save(step + 1, kept)
            if stopped:
                raise KeyboardInterrupt
            if enough:
                break
    if plan.ema:
        average.apply()
    patience.apply()
    if final is not whole:
        sharded.fill(final.to(accelerator.device), whole)
    processes.alike(tensors_of(final))
    return final.finish().eval()


class Together(nn.Module):
    """Several methods that share a trunk, as one module: what accelerate wraps."""

    def __init__(self, trunk: nn.Module, methods: Sequence[Method], feed: Feed, plan: Plan) -> None:
        super().__init__()
        facts = feed.facts(feed.width or width_of(trunk, feed.size_px), plan.steps, plan.seed)
        self.methods = tuple(methods)
        names = [type(method).__name__.lower() for method in methods]
        several = [f"{name}{i if names.count(name) > 1 else ''}." for i, name in enumerate(names)]
        self.owners = several if len(names) > 1 else [""]
        self.models = nn.ModuleList(method.prepare(trunk, facts) for method in methods)

    @classmethod
    def of(cls, trunk: nn.Module, methods: Sequence[Method], feed: Feed, plan: Plan) -> Together:
        """As a training begins with it."""
        torch.manual_seed(seed_of(plan.seed, "heads"))
        return cls(trunk, methods, feed, plan).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """All loss terms, under names that say whose they are where there are several methods."""
        terms: dict[str, Tensor] = {}
        for owner, method, model, batch in zip(self.owners, self.methods, self.models, batches, strict=True):
            terms |= {f"{owner}{name}": value.float() for name, value in method.loss(model, batch).items()}
        return terms

    def rates(self) -> dict[nn.Parameter, float]:
        """Multiples of the learning rate, where they are not 1."""
        multiples: dict[nn.Parameter, float] = {}
        for method, model in zip(self.methods, self.models, strict=True):
            said = method.rates(model)
            for name, parameter in model.named_parameters():
                fitting = [beginning for beginning in said if name.startswith(beginning)]
                if fitting:
                    multiples[parameter] = said[max(fitting, key=len)]
        return multiples

    def after(self, batches: Sequence[Batch]) -> None:
        """What the methods do after the optimiser's step."""
        for method, model, batch in zip(self.methods, self.models, batches, strict=True):
            method.after(model, batch)

    def finish(self) -> nn.Module:
        """What the first method makes of it."""
        return self.methods[0].finish(self.models[0])


@dataclass(frozen=True, eq=False)
class Work:
    """A step of the optimiser, from the gradients of its parts."""

    whole: Together
    model: nn.Module  # the same, as accelerate has wrapped it
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    plan: Plan

    def step(self, step: int, rate: float, parts: list[list[Batch]], log: Log) -> str | None:
        """Done; or, where memory ran out on the way, what was said: then it has to begin from a state that is whole."""
        try:
            self._step(step, rate, parts, log)
        except (RuntimeError, MemoryError) as error:
            why = ran_out(error)
            if why is None:
                raise
            if processes.count() > 1:  # the others are in the middle of the step
                raise BadSetting(
                    f"Memory ran out in one of {processes.count()} processes at step {step} ({why}). Run it again with "
                    f"less else in memory, or with batch={self.plan.batch // 2}"
                ) from error
        else:
            return None
        self.optimizer.zero_grad()
        return why

    def _step(self, step: int, rate: float, parts: list[list[Batch]], log: Log) -> None:
        accelerator, plan = self.accelerator, self.plan
        count = accelerator.num_processes
        for part, batch in enumerate(parts):
            torch.manual_seed(seed_of(plan.seed, "dropout", step, part, accelerator.process_index))
            share = len(batch[0].rows) / plan.batch
            gather = count == 1 or part + 1 == len(parts)  # gradients, once per step
            with contextlib.nullcontext() if gather else accelerator.no_sync(self.model):
                with accelerator.autocast(), shared_norm.over_processes():
                    terms = self.model(batch)
                accelerator.backward(torch.stack(list(terms.values())).sum() * (share * count))
            log.note(step, rate, terms, share)
        accelerator.clip_grad_norm_(self.whole.parameters(), plan.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def short(self, supply: Supply, first: int) -> str | None:
        """Whether a part does not fit into one of several processes, each of which tries alone: what the first says.

        Nobody may stop in the middle of a shared step, for the others would wait. What this leaves has to be undone.
        """
        why = None
        supply.begin(first)
        try:
            with processes.alone(), contextlib.closing(supply), self.accelerator.autocast():
                _, parts = next(iter(supply))
                torch.stack(list(self.whole(parts[0]).values())).sum().backward()
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            why = ran_out(error)
            if why is None:
                raise
        self.optimizer.zero_grad()
        return next((said for said in processes.gathered(why) if said is not None), None)


def width_of(trunk: nn.Module, size_px: int) -> int:
    """D, by asking; the trunk is left as it was."""
    training, device = trunk.training, next(trunk.parameters()).device
    with torch.no_grad():
        width = trunk.eval()(torch.zeros(1, 3, size_px, size_px, device=device)).shape[1]
    trunk.train(training)
    return width


def optimizer_of(
    model: nn.Module, plan: Plan, multiples: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser of what can learn; biases, norms and other 1-d parameters do not decay."""
    learning = [(p, (multiples or {}).get(p, 1.0)) for p in model.parameters() if p.requires_grad]
    if not learning:
        raise BadSetting("Nothing is left that could learn. Choose fewer frozen layers")
    groups = [
        {"params": chosen, "weight_decay": plan.weight_decay if decays else 0.0, "multiple": multiple}
        for multiple in sorted({m for _, m in learning})
        for decays in (True, False)
        if (chosen := [p for p, m in learning if m == multiple and (p.ndim > 1) == decays])
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.rate, momentum=plan.momentum, nesterov=plan.momentum > 0)
    kind = torch.optim.AdamW if plan.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=plan.rate)


@dataclass(frozen=True)
class Judge:
    """Who says when a training has had enough: early stopping.

    Every `every` steps `measure(model)`, smaller is better; after `patience` times without a smaller value it ends.
    """

    measure: Callable[[nn.Module], float]
    every: int
    patience: int


class Patience:
    """The best moment so far, as a judge sees it; all of it lies in the checkpoint."""

    def __init__(self, whole: Together, average: Ema, judge: Judge | None, shown: Together) -> None:
        self._whole, self._average, self._judge, self._shown = whole, average, judge, shown
        self.tensors: dict[str, Tensor] = {}
        if judge is not None:
            self.tensors = {name: t.detach().clone() for name, t in tensors_of(whole).items()}
            self.tensors |= {"value": torch.tensor(math.inf, dtype=torch.float64), "waited": torch.tensor(0)}

    @property
    def over(self) -> bool:
        """Whether the judge has waited long enough."""
        return self._judge is not None and int(self.tensors["waited"]) >= self._judge.patience

    @torch.no_grad()
    def enough(self, step: int) -> bool:
        """Ask the judge, where it is time to; whether it has waited long enough."""
        judge = self._judge
        if judge is None or (step + 1) % judge.every:
            return False
        live = {name: t.detach().clone() for name, t in tensors_of(self._whole).items()}
        if self._average.decay:
            self._average.apply()
        if self._shown is not self._whole:
            sharded.fill(self._shown, self._whole)
        shown = self._shown.eval()
        value = processes.decided(lambda: judge.measure(shown.models[0]))  # type: ignore[arg-type]
        if value < self.tensors["value"]:
            for name, tensor in tensors_of(self._whole).items():
                self.tensors[name].copy_(tensor)
            self.tensors["value"].fill_(value)
            self.tensors["waited"].zero_()
        else:
            self.tensors["waited"] += 1
        for name, tensor in tensors_of(self._whole).items():
            tensor.copy_(live[name])
        self._whole.train()
        return self.over

    @torch.no_grad()
    def apply(self) -> None:
        """Back to the best moment."""
        if self._judge is not None and math.isfinite(self.tensors["value"]):
            for name, tensor in tensors_of(self._whole).items():
                tensor.copy_(self.tensors[name])


class Memory:
    """All tensors that outlast a step, by name, and how the model was at the very beginning."""

    def __init__(self, model: nn.Module, average: Ema, optimizer: torch.optim.Optimizer, patience: Patience) -> None:
        self.model, self.average, self.optimizer, self.patience = model, average, optimizer, patience
        self._beginning = {
            name: sharded.whole(t.detach()).to("cpu", copy=True) for name, t in tensors_of(model).items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """model.NAME, ema.NAME, best.NAME, optimizer.INDEX.NAME."""
        found = {f"model.{name}": t for name, t in tensors_of(self.model).items()}
        found |= {f"ema.{name}": t for name, t in self.average.tensors.items()}
        found |= {f"best.{name}": t for name, t in self.patience.tensors.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": t for name, t in slots.items() if t is not None}
        return {name: sharded.whole(t) for name, t in found.items()}

    def restore(self, run: Run | None) -> int:
        """Put the newest checkpoint in place, or the beginning; the number of steps that lie behind."""
        found = run.load() if run else None
        step = processes.decided(lambda: run.step if run and found is not None else None)
        if step is not None:
            self._put(processes.received(found))
            return step
        kept = {f"{owner}.{name}": t for name, t in self._beginning.items() for owner in ("model", "ema", "best")}
        self._put({**kept, "best.value": torch.tensor(math.inf), "best.waited": torch.tensor(0)})
        return 0

    @torch.no_grad()
    def _put(self, kept: Mapping[str, Tensor]) -> None:
        parts = (("model.", tensors_of(self.model)), ("ema.", self.average.tensors), ("best.", self.patience.tensors))
        for prefix, live in parts:
            for name, tensor in live.items():
                tensor.copy_(sharded.like(kept[prefix + name], tensor))
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in kept.items():
            if name.startswith("optimizer."):
                _, index, slot = name.split(".")
                slots.setdefault(int(index), {})[slot] = sharded.like(tensor, learning[int(index)])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})


@dataclass
class Log:
    """Loss terms on their way to the run's log and to whoever watches; a loss that is not finite ends the training."""

    run: Run | None
    watch: Watch
    plan: Plan
    first: int
    stage: str = ""
    lines: int = 10  # said on the way, evenly
    items: str = "images"
    _waiting: list[tuple[int, float, float, dict[str, Tensor]]] = field(default_factory=list)
    _flushed: float = field(default_factory=time.monotonic)
    _began: float = field(default_factory=time.monotonic)
    _said: int = 0

    def note(self, step: int, rate: float, terms: dict[str, Tensor], share: float) -> None:
        """Terms of one part of a step, and its share of the items; nothing is waited for."""
        self._waiting.append((step, rate, share, {name: value.detach() for name, value in terms.items()}))

    def due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() - self._flushed >= FLUSH_SECONDS

    def flush(self, done: int, now: bool, last: bool = False) -> None:
        """Look at the losses of all processes, at times."""
        if not now:
            return
        own = [
            (step, rate, {name: value.item() * share for name, value in terms.items()})
            for step, rate, share, terms in self._waiting
        ]
        lines: dict[int, dict[str, Any]] = {}
        for step, rate, terms in (part for parts in processes.gathered(own) for part in parts):
            line = lines.setdefault(step, {"step": step, "rate": rate})
            for name, value in terms.items():
                line[name] = line.get(name, 0.0) + value
        seconds = self.run.elapsed() if self.run else time.monotonic() - self._began
        for step, line in lines.items():
            if not all(math.isfinite(value) for value in line.values()):
                raise BadSetting(
                    f"The loss was not finite any more at step {step} of {self.plan.steps}: the training diverged. "
                    f"A smaller learning rate than {self.plan.rate:g} (--rate) helps"
                )
            line["seconds"] = round(seconds, 3)
        if self.run and lines:
            self.run.log(list(lines.values()))
        for step, line in lines.items():
            self.watch.track(self.stage, step, {k: v for k, v in line.items() if k not in ("step", "seconds")})
        self._say(done, list(lines.values()), last)
        self._waiting, self._flushed = [], time.monotonic()

    def _say(self, done: int, lines: list[dict[str, Any]], last: bool) -> None:
        """A line per tenth of the way, or as often as was asked."""
        part = self.lines * done // self.plan.steps
        if not (last or part > self._said) or not lines:
            return
        self._said = part
        pace = (time.monotonic() - self._began) / max(1, done - self.first)
        shown = [name for name in lines[-1] if name not in ("step", "rate", "seconds")]
        means = ", ".join(f"{name} {sum(line[name] for line in lines) / len(lines):.3f}" for name in shown)
        left = "" if last else f", {_span(pace * (self.plan.steps - done))} left"
        speed = f"{self.plan.batch / pace:,.0f} {self.items}/s"
        self.watch.say(f"{self.stage}, step {done:,} of {self.plan.steps:,}: {means}; {speed}{left}")


def pace(
    build: Callable[[], nn.Module], methods: Sequence[Method], feed: Feed, plan: Plan, most_seconds: float
) -> float:
    """Seconds per step, measured on real steps of a copy that is thrown away; the first three are not counted."""
    ends: list[float] = []

    def tick(*_: object) -> None:
        ends.append(time.monotonic())
        if processes.decided(lambda: len(ends) >= 6 and ends[-1] - ends[0] > most_seconds):
            raise _Enough

    with contextlib.suppress(_Enough):
        train(build(), methods, feed, dataclasses.replace(plan, steps=200), None, Watch(progress=tick))
    return (ends[-1] - ends[2]) / (len(ends) - 3)


def find_rate(
    build: Callable[[], nn.Module],
    methods: Sequence[Method],
    feed: Feed,
    plan: Plan,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 80,
) -> float:
    """A peak learning rate: a tenth of where the loss is smallest while the rate grows from `low` to `high`.

    r(t) = low (high / low)^(t / T); losses are smoothed over about ten steps, and it ends where they are four times the
    smallest. Trains a copy that is thrown away. Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017.
    """
    plan = dataclasses.replace(plan, steps=steps)
    while True:
        try:
            return _rate_of(build(), methods, feed, plan, low, high)
        except (RuntimeError, MemoryError) as error:
            why = ran_out(error)
            if why is None:
                raise
        plan = dataclasses.replace(plan, parts=twice(plan.parts, plan.batch, why).value)
        free()


def _rate_of(trunk: nn.Module, methods: Sequence[Method], feed: Feed, plan: Plan, low: float, high: float) -> float:
    steps = plan.steps
    torch.manual_seed(seed_of(plan.seed, "heads"))
    whole = Together(trunk, methods, feed, plan).to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = optimizer_of(whole, plan, whole.rates())
    whole.train()
    smooth, best, chosen = 0.0, math.inf, low
    setup = Setup(steps, plan.batch, plan.seed, plan.parts, plan.device)
    with contextlib.closing(feed.batches(methods, 0, setup)) as batches:  # type: ignore[type-var]
        for step, parts in batches:
            rate = low * (high / low) ** (step / steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["multiple"]
            total = 0.0
            for batch in parts:
                torch.manual_seed(seed_of(plan.seed, "dropout", step))
                loss = torch.stack(list(whole(batch).values())).sum() / len(parts)
                loss.backward()
                total += loss.item()
            nn.utils.clip_grad_norm_(whole.parameters(), plan.clip)
            optimizer.step()
            optimizer.zero_grad()
            smooth = 0.9 * smooth + 0.1 * total
            level = smooth / (1 - 0.9 ** (step + 1))
            if not level <= 4 * best:  # or not a number
                break
            if level < best:
                best, chosen = level, rate
    return chosen / 10


class _Enough(Exception):
    pass


@dataclass
class _Stop:
    asked: bool = False


@contextlib.contextmanager
def _stop_between_steps() -> Iterator[_Stop]:
    """Ctrl-C waits for the end of the step, so that a checkpoint can be written; a second one does not."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(*_: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _accelerator(plan: Plan, waits: bool = False) -> Accelerator:
    """accelerate keeps one state per process; a second training may want another device."""
    cpu = plan.device == "cpu"
    known = AcceleratorState._shared_state
    if known and (known["device"].type != plan.device.split(":")[0] or known["_mixed_precision"] != plan.precision):
        AcceleratorState._reset_state(reset_partial_state=True)
    named = {} if cpu or ":" not in plan.device else {"ACCELERATE_TORCH_DEVICE": plan.device}
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=waits)
    with patch_environment(**named):
        parts = sharded.options()
        accelerator = Accelerator(cpu=cpu, mixed_precision=plan.precision, kwargs_handlers=[parallel], **parts)
        sharded.settle(accelerator, parts.get("fsdp_plugin"))
    N = accelerator.num_processes
    if processes.count() != N:
        raise BadSetting(f"accelerate finds {N} processes, of which {processes.count()} have met. Start with torchrun")
    if plan.batch < N:
        raise BadSetting(f"A batch of {plan.batch} items cannot be shared by {N} processes. Start fewer")
    return accelerator


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
