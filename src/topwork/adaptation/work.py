"""What a training works on, and one step of it: the model, its optimiser, its average, its best moment, its memory.

Several processes share every batch: the loss of each counts by its items, batch norms see the items of all, and
gradients are averaged, so that a step is that of one process with the whole batch, up to rounding.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, patch_environment
from torch import nn

from topwork import processes
from topwork.adaptation import Batch, Method, sharded
from topwork.adaptation.checkpoint import Memory
from topwork.adaptation.feed import Feed, Setup, seed_of
from topwork.adaptation.loss_log import Log
from topwork.adaptation.parts import Supply, ran_out
from topwork.adaptation.patience import Judge, Patience
from topwork.adaptation.plan import Plan, optimizer_of
from topwork.adaptation.together import Together
from topwork.errors import BadSetting
from topwork.nn import shared_norm
from topwork.nn.ema import Ema, tensors_of
from topwork.nn.schedule import warm_cosine


@dataclass(frozen=True, eq=False)
class Work:
    """A training's state, and a step of the optimiser from the gradients of its parts."""

    plan: Plan
    accelerator: Accelerator
    whole: Together
    final: Together  # the same, unless every process keeps a part of it only
    model: nn.Module  # the same, as accelerate has wrapped it
    plain: torch.optim.Optimizer
    optimizer: torch.optim.Optimizer  # the same, as accelerate has wrapped it
    average: Ema
    patience: Patience
    memory: Memory

    @classmethod
    def of(cls, trunk: nn.Module, methods: Sequence[Method], feed: Feed, plan: Plan, judge: Judge | None) -> Work:
        """As a training begins with it."""
        accelerator = accelerator_of(plan, waits=any(method.waits for method in methods))
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
        return cls(plan, accelerator, whole, final, model, plain, optimizer, average, patience, memory)

    @property
    def setup(self) -> Setup:
        """What the feed has to know."""
        plan, own = self.plan, self.accelerator
        return Setup(plan.steps, plan.batch, plan.seed, plan.parts, str(own.device), own.process_index,
                     own.num_processes)  # fmt: skip

    @property
    def norms_learn(self) -> bool:
        """Whether a batch norm learns, which one item is not enough for."""
        return any(m.training for m in self.whole.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))

    def step(self, step: int, parts: list[list[Batch]], log: Log) -> str | None:
        """Done; or, where memory ran out on the way, what was said: then it has to begin from a state that is whole."""
        rate = self.plan.rate * warm_cosine(step, self.plan.steps, self.plan.warmup)
        for group in self.plain.param_groups:
            group["lr"] = rate * group["multiple"]
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

    def result(self) -> nn.Module:
        """What the first method makes of it: averaged, at its best moment, whole."""
        if self.plan.ema:
            self.average.apply()
        self.patience.apply()
        if self.final is not self.whole:
            sharded.fill(self.final.to(self.accelerator.device), self.whole)
        processes.alike(tensors_of(self.final))
        return self.final.finish().eval()


def accelerator_of(plan: Plan, waits: bool = False) -> Accelerator:
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
