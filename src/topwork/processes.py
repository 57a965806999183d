"""Several processes that do one work: torchrun or accelerate launch started the same command N times.

    together()        find the others; until then, and where nobody started several, everything here is free
    rank(), count()   0 .. count - 1; the first one, 0, writes, speaks and decides
    decided(work)     the first does `work`, and all go on with what it says (plain JSON), its errors included
    first()           a block that the first goes through before the others, who find in the cache what it left there
    alone()           a block in which this process asks nobody
    agreed(*flags)    which flags are up anywhere            gathered(value)   what everybody says, in order
    received(tensors) the first one's tensors                alike(tensors)    everybody's become those of the first

What depends on the clock, on the disk or on chance is decided once, so that all take the same way and nobody waits for
what never comes. Values travel as JSON and tensors as they are; nothing is unpickled. A process that ends closes its
connections: whoever waits for it gets ProcessLost at once, and the launcher ends the rest.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from topwork import errors
from topwork.errors import BadSetting, MissingExtra, ProcessLost, TopworkError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(days=30)  # others may decode images or train a head for long; who has died is noticed at once
SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")  # ways of accelerate that leave a part of the model in every process
NAMED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what launchers set; all of them, or nothing is meant


@dataclass
class _Us:
    rank: int = 0
    count: int = 1
    local: int = 1  # of them on this machine
    group: Any = None  # for words between processors, whatever the tensors of a training go by
    alone: int = 0  # blocks of `alone` that are open


_us = _Us()


def rank() -> int:
    """Number of this process; 0 speaks."""
    return 0 if _us.alone else _us.rank


def count() -> int:
    """How many work together."""
    return 1 if _us.alone else _us.count


def beside() -> int:
    """How many of them share this machine."""
    return _us.local


def started() -> int:
    """How many were started, whether or not they have found each other."""
    try:
        return int(os.environ["WORLD_SIZE"]) if all(os.environ.get(name) for name in NAMED) else 1
    except ValueError as error:
        raise BadSetting(f"WORLD_SIZE={os.environ['WORLD_SIZE']!r}. Expected what torchrun sets: a number") from error


def together() -> None:
    """Find the others. Free where there are none; a second call does nothing."""
    if started() == 1 or _us.group is not None:
        return
    asked = [name for name in SHARDED if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true"]
    if asked and (asked != ["FSDP"] or os.environ.get("FSDP_VERSION", "1") != "2"):
        raise BadSetting(
            f"accelerate is set to {' and '.join(asked)}, which cuts the model in a way that we cannot follow. "
            "Expected FSDP with fsdp_version: 2, or MULTI_GPU, in its config, or torchrun"
        )
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("accelerate")):
        raise MissingExtra.of("train", "A run of several processes")
    import torch
    import torch.distributed as dist
    from accelerate import PartialState

    found = torch.accelerator.current_accelerator(check_available=True)
    cpu = (os.environ.get("TOPWORK_DEVICE") or (found.type if found else "cpu")) == "cpu"
    with _reaching(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which we set ourselves
        PartialState(cpu=cpu, timeout=PATIENCE)
        _us.group = dist.new_group(backend="gloo", timeout=PATIENCE)
    _us.rank, _us.count = dist.get_rank(), dist.get_world_size()
    _us.local = int(os.environ.get("LOCAL_WORLD_SIZE", _us.count))


def barrier() -> None:
    """Wait until all are here."""
    if count() > 1:
        import torch.distributed as dist

        with _reaching():
            dist.barrier(_us.group)


def decided(work: Callable[[], T]) -> T:
    """What `work` gives in the first process, plain JSON; an error of ours is raised in all of them."""
    if count() == 1:
        return work()
    if rank():
        said = json.loads(_broadcast(b""))
        if "error" in said:
            raise getattr(errors, said["error"], TopworkError)(said["why"])
        return said["value"]
    try:
        text = json.dumps({"value": work()}, default=_plain)
    except TopworkError as error:
        _broadcast(json.dumps({"error": type(error).__name__, "why": str(error)}).encode())
        raise
    _broadcast(text.encode())
    return json.loads(text)["value"]


def gathered(value: Any) -> list[Any]:
    """What everybody says, plain JSON, in the order of their numbers."""
    if count() == 1:
        return [value]
    import torch
    import torch.distributed as dist

    data = json.dumps(value, default=_plain).encode()
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
    with _reaching():
        dist.all_gather(sizes, torch.tensor([len(data)]), group=_us.group)
        longest = max(int(size) for size in sizes)
        parts = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
        dist.all_gather(parts, _bytes(data.ljust(longest)), group=_us.group)
    return [json.loads(part.numpy().tobytes()) for part in parts]


def agreed(*flags: bool) -> tuple[bool, ...]:
    """Flag by flag: whether it is up in any process."""
    if count() == 1:
        return flags
    import torch
    import torch.distributed as dist

    up = torch.tensor(flags, dtype=torch.uint8)
    with _reaching():
        dist.all_reduce(up, dist.ReduceOp.MAX, group=_us.group)
    return tuple(bool(flag) for flag in up)


def received(tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The first one's tensors, by name, in the memory of the processor."""
    import torch
    import torch.distributed as dist

    mine = {name: t.detach().cpu().contiguous() for name, t in (tensors or {}).items()}
    if count() == 1:
        return mine
    kinds = decided(lambda: {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in mine.items()})
    if rank():
        mine = {name: torch.empty(shape, dtype=getattr(torch, kind)) for name, (kind, shape) in kinds.items()}
    with _reaching():
        for name in kinds:
            dist.broadcast(mine[name], 0, group=_us.group)
    return mine


def alike(tensors: Mapping[str, Tensor]) -> None:
    """Put the first one's values into everybody's tensors of the same names and shapes."""
    if count() == 1:
        return
    import torch.distributed as dist

    with _reaching():
        for tensor in tensors.values():
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, 0)
            tensor.detach().copy_(whole)


@contextlib.contextmanager
def first() -> Iterator[None]:
    """The first process does the block, then the others do it, too."""
    if rank():
        barrier()
    try:
        yield
    except Exception:
        if not rank():
            barrier()  # the others meet the same error, or are told by our end
        raise
    if not rank():
        barrier()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Nothing in the block waits for others."""
    _us.alone += 1
    try:
        yield
    finally:
        _us.alone -= 1


@contextlib.contextmanager
def losing() -> Iterator[None]:
    """What libraries say when another process has ended, in our words."""
    if count() == 1:
        yield
        return
    with _reaching():
        yield


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        import torch.distributed as dist

        if isinstance(error, TopworkError) or not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        raise ProcessLost("Another process of this run has ended or cannot be reached; what it said tells why") from (
            error
        )


def _broadcast(data: bytes) -> bytes:
    import torch
    import torch.distributed as dist

    with _reaching():
        size = torch.tensor([len(data)])
        dist.broadcast(size, 0, group=_us.group)
        whole = torch.empty(int(size), dtype=torch.uint8) if rank() else _bytes(data)
        dist.broadcast(whole, 0, group=_us.group)
    return whole.numpy().tobytes()


def _bytes(data: bytes) -> Tensor:
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as Python's."""
    return value.tolist()
