"""An encoder of texts cut in two: embeddings and the first blocks below, the rest above.

    stages = TextStages.of(trunk)              blocks in the order in which the states go through them
    below, above = stages.cut(k)               above(*below(ids, weights), ids, weights) = trunk(ids, weights)

Encoders are one list of blocks after their embeddings: stage 0 holds what comes before the blocks and what all of them
share (relative positions), then every block is a stage, and what follows the last one belongs to it. What lies above
runs the encoder's own code with the stored states (B, L, D) in place of what the lower layers would give, so that masks
and positions are made as its authors make them. Both parts share the trunk's parameters. Blocks that are run several
times (ALBERT) cannot be told apart.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from topwork.errors import BadSetting

LENGTH = 8  # tokens of the texts that it is tried with


@dataclass(frozen=True, eq=False)
class TextStages:
    """The layers of an encoder."""

    names: tuple[tuple[str, ...], ...]  # of every stage, from below
    shares: tuple[tuple[float, ...], ...]  # of the multiply-adds, of every layer; they sum to 1
    trunk: nn.Module
    chain: tuple[str, ...]  # layers through which the states go, up to the last block
    tuples: Mapping[str, int]  # those of them that give so many things, of which the states are the first

    @classmethod
    def of(cls, trunk: nn.Module) -> TextStages:
        """Look through the trunk; raises BadSetting where its layers cannot be told apart."""
        try:
            blocks = _blocks(trunk)
            layers = list(_layers(trunk, blocks))
            seen = _look(trunk, layers)
            chain = _chain(blocks, seen)
        except Exception as error:  # networks are foreign code
            raise BadSetting(
                f"{type(trunk).__name__}: its layers cannot be told apart ({' '.join(str(error).split())[:160]}). "
                "Tune all of it: lp_ft or full"
            ) from error
        order = list(seen)
        after = [name for name in order if order.index(name) > order.index(blocks[-1])]
        states = [name for name in chain if name not in blocks]
        beside = [name for name in layers if name not in (*chain, *after)]
        groups = ((*states, *beside), *((name,) for name in blocks[:-1]), (blocks[-1], *after))
        total = sum(look.cost for look in seen.values()) or 1
        shares = tuple(tuple(seen[n].cost / total if n in seen else 0.0 for n in stage) for stage in groups)
        tuples = {name: seen[name].things for name in chain if seen[name].things}
        return cls(groups, shares, trunk, tuple(chain), tuples)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers."""
        return tuple(name for stage in self.names for name in stage)

    def above(self, k: int) -> float:
        """Share of the multiply-adds above the first k layers."""
        return sum([share for stage in self.shares for share in stage][k:])

    def cut(self, k: int) -> tuple[Below, Above]:
        """The first k layers, and the rest; the former is frozen. k lies between two blocks."""
        first = len(self.names[0])
        blocks = len(self.names) - 1
        if not first <= k < first + blocks:
            raise BadSetting(
                f"{k} of {len(self.layers)} layers: texts are cut behind the embeddings or between two blocks. "
                f"Expected last_stages(n) with n from 1 to {blocks}"
            )
        for name in self.layers[:k]:
            self.trunk.get_submodule(name).requires_grad_(False)
        at = len(self.chain) - blocks + k - first  # layers of the chain that lie below
        return Below(self.trunk, self.chain[at]), Above(self, self.chain[:at])


class Below(nn.Module):
    """What lies below a layer: ids and weights (B, L) -> the states (B, L, D) that go into it."""

    def __init__(self, trunk: nn.Module, layer: str) -> None:
        super().__init__()
        self.trunk, self.layer = trunk, layer
        self.eval()

    def forward(self, ids: Tensor, weights: Tensor) -> tuple[Tensor]:
        """Run the trunk up to the layer."""

        def stop(_module: nn.Module, args: Any, kwargs: Any) -> None:
            raise _Reached(_first(args, kwargs))

        handle = self.trunk.get_submodule(self.layer).register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.trunk(ids, weights)
        except _Reached as reached:
            return (reached.states,)
        finally:
            handle.remove()
        raise BadSetting(f"{type(self.trunk).__name__} does not run {self.layer} on these texts. Tune all of it: lp_ft")


class Above(nn.Module):
    """What lies above: stored states, ids and weights -> features. Its layers have the trunk's names."""

    is_cut = True
    _given: list[Tensor]
    _shell: nn.Module

    def __init__(self, stages: TextStages, below: Sequence[str]) -> None:
        super().__init__()
        given: list[Tensor] = []
        shell = _opened(stages.trunk, (*below, *stages.names[0]))
        for name in below:
            shell.set_submodule(name, Given(given, stages.trunk.get_submodule(name), stages.tuples.get(name, 0)))
        for name in stages.names[0]:
            if name not in below:
                shell.set_submodule(name, _still(stages.trunk.get_submodule(name)))
        self.__dict__ |= {"_given": given, "_shell": shell}  # not a layer of its own: its layers are ours
        self._modules, self._parameters, self._buffers = shell._modules, shell._parameters, shell._buffers

    def forward(self, states: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """(B, L, D) and (B, L) twice -> (B, D')."""
        self._given[:] = [states]
        try:
            return self._shell(ids, weights)
        finally:
            self._given.clear()


class Given(nn.Module):
    """In place of a layer: the states that it and those below it would have given."""

    given: list[Tensor]
    things: int

    def __init__(self, given: list[Tensor], layer: nn.Module, things: int) -> None:
        super().__init__()
        facts = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
        self.__dict__ |= facts  # of what kind it is: the encoder's code may ask
        self.__dict__ |= {"given": given, "things": things}

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        """The stored states."""
        return (self.given[0], *[None] * (self.things - 1)) if self.things else self.given[0]


class _Reached(Exception):
    def __init__(self, states: Tensor) -> None:
        self.states = states


@dataclass
class _Seen:
    """What a layer was asked and gave."""

    asked: Any
    given: Any
    things: int  # in the tuple that it gives; 0: no tuple
    calls: int
    cost: float


def _blocks(trunk: nn.Module) -> list[str]:
    """The list of blocks that holds most of the parameters."""
    lists = {name: m for name, m in trunk.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    if not lists:
        raise ValueError("it has no list of blocks")

    def weight(name: str) -> tuple[int, int]:
        return sum(p.numel() for p in lists[name].parameters()), -name.count(".")

    best = max(lists, key=weight)
    return [f"{best}.{number}" for number in range(len(lists[best]))]


def _layers(module: nn.Module, blocks: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Blocks, and what stands beside them as a whole; only what has parameters."""
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        if full not in blocks and any(block.startswith(f"{full}.") for block in blocks):
            yield from _layers(child, blocks, f"{full}.")
        elif any(True for _ in child.parameters()):
            yield full


def _look(trunk: nn.Module, layers: Sequence[str]) -> dict[str, _Seen]:
    """What happens at each layer, in the order of the calls."""
    seen: dict[str, _Seen] = {}
    handles, training, device = [], trunk.training, next(trunk.parameters()).device
    counter = FlopCounterMode(display=False)

    def before(name: str) -> Any:
        def note(_module: nn.Module, args: Any, kwargs: Any) -> None:
            if name in seen:
                seen[name].calls += 1
            else:
                seen[name] = _Seen(_first(args, kwargs), None, 0, 1, 0.0)
            seen[name].cost -= counter.get_total_flops()

        return note

    def after(name: str) -> Any:
        def note(_module: nn.Module, _args: Any, out: Any) -> None:
            seen[name].cost += counter.get_total_flops()
            seen[name].things = len(out) if isinstance(out, tuple) else 0
            seen[name].given = out[0] if isinstance(out, tuple) and out else out

        return note

    for name in layers:
        module = trunk.get_submodule(name)
        handles += [
            module.register_forward_pre_hook(before(name), with_kwargs=True),
            module.register_forward_hook(after(name)),
        ]
    learning = [p for p in trunk.parameters() if p.requires_grad]
    try:
        trunk.eval().requires_grad_(False)  # the counter cannot follow parameters that are fed to layers as inputs
        with torch.no_grad(), counter:
            ids = torch.zeros(2, LENGTH, dtype=torch.int64, device=device)
            trunk(ids, torch.ones(2, LENGTH, device=device))
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        trunk.train(training)
        for handle in handles:
            handle.remove()
    return seen


def _chain(blocks: Sequence[str], seen: dict[str, _Seen]) -> list[str]:
    """Layers that hand the states on: from the first that gives them to the last block."""
    if any(block not in seen or seen[block].calls != 1 for block in blocks):
        raise ValueError("its blocks are not run once each")
    for lower, upper in itertools.pairwise(blocks):
        if seen[upper].asked is not seen[lower].given:
            raise ValueError(f"{lower} does not give what {upper} takes")
    chain, wanted = list(blocks), seen[blocks[0]].asked
    order = list(seen)
    for name in reversed(order[: order.index(blocks[0])]):
        if isinstance(wanted, Tensor) and seen[name].given is wanted:
            chain, wanted = [name, *chain], seen[name].asked
    if len(chain) == len(blocks):
        raise ValueError("nothing hands the first block its states")
    return chain


def _first(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What a layer is asked about: its first argument."""
    return args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None))


def _opened(trunk: nn.Module, names: Sequence[str]) -> nn.Module:
    """The trunk with copies of the modules that hold these layers, so that others can take their places."""
    clone = copy.copy(trunk)
    clone._modules = dict(trunk._modules)
    heads = {name.partition(".")[0] for name in names if "." in name}
    for head in heads:
        inner = [name.partition(".")[2] for name in names if name.startswith(f"{head}.")]
        clone._modules[head] = _opened(trunk.get_submodule(head), inner)
    return clone


def _still(module: nn.Module) -> nn.Module:
    """A copy whose parameters are buffers: nothing of it can learn."""
    module = copy.deepcopy(module)
    for part in module.modules():
        for name, value in list(part._parameters.items()):
            if value is not None:
                del part._parameters[name]
                part.register_buffer(name, value.detach())
    return module
