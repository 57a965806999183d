"""A trunk cut in two: what lies below a boundary, and what lies above it.

    stages = Stages.of(trunk, size_px)         layers in the order in which data go through them, grouped
    below, above = stages.cut(k)               above(*below(images)) = trunk(images); k layers are below

A layer is a block as its authors wrote it (or a convolution, a norm on its own); a stage is a run of layers whose maps
have one size, or, where the size never changes (transformers), one block. Both parts share the trunk's parameters and
buffers: what is learnt above is learnt in the trunk. The cut is made in the network's own graph (torch.fx; Reed et al.,
torch.fx, MLSys 2022), and so knows of every tensor that crosses it, those of skip connections included.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from topwork.backbones.trunk import GridMean
from topwork.errors import BadSetting

CONTAINERS = (nn.Sequential, nn.ModuleList)
DEEPEST = 2  # dots in the name of a container that is looked into


@dataclass(frozen=True, eq=False)
class Stages:
    """The layers of a trunk."""

    names: tuple[tuple[str, ...], ...]  # of every stage, from below
    shares: tuple[tuple[float, ...], ...]  # of the multiply-adds, of every layer; they sum to 1
    trunk: nn.Module
    graph: fx.Graph

    @classmethod
    def of(cls, trunk: nn.Module, size_px: int) -> Stages:
        """Look through the trunk; raises BadSetting where its code cannot be followed."""
        try:
            graph = _Tracer().trace(trunk)
            layers = [node for node in graph.nodes if node.op == "call_module"]
            sizes, costs = _look(trunk, [str(node.target) for node in layers], size_px)
        except Exception as error:  # networks are foreign code: tracing runs it on stand-ins
            raise BadSetting(
                f"{type(trunk).__name__}: its layers cannot be told apart ({' '.join(str(error).split())[:160]}). "
                "Tune all of it: lp_ft or full"
            ) from error
        groups = _grouped([str(node.target) for node in layers], sizes)
        total, at, shares = sum(costs) or 1, 0, []
        for names in groups:
            shares.append(tuple(cost / total for cost in costs[at : at + len(names)]))
            at += len(names)
        return cls(groups, tuple(shares), trunk, graph)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers."""
        return tuple(name for stage in self.names for name in stage)

    def above(self, k: int) -> float:
        """Share of the multiply-adds above the first k layers."""
        return sum([share for stage in self.shares for share in stage][k:])

    def cut(self, k: int) -> tuple[fx.GraphModule, fx.GraphModule]:
        """The first k layers, and the rest; the former is frozen and in eval mode."""
        nodes = list(self.graph.nodes)
        layers = [i for i, node in enumerate(nodes) if node.op == "call_module"]
        at = layers[k]
        nodes, at = self._early_means_below(nodes, at)
        crossing = [node for node in nodes[:at] if any(user in nodes[at:] for user in node.users)]
        lower, upper = fx.Graph(), fx.Graph()
        known: dict[fx.Node, fx.Node] = {}
        for node in nodes[:at]:
            known[node] = lower.node_copy(node, known.__getitem__)
        lower.output(tuple(known[node] for node in crossing))
        known = {node: upper.placeholder(f"boundary_{i}") for i, node in enumerate(crossing)}
        for node in nodes[at:]:
            known[node] = upper.node_copy(node, known.__getitem__)
        below, above = fx.GraphModule(self.trunk, lower), fx.GraphModule(self.trunk, upper)
        for parameter in below.parameters():
            parameter.requires_grad_(False)
        return below.eval(), above

    def _early_means_below(self, nodes: list[fx.Node], at: int) -> tuple[list[fx.Node], int]:
        """Means of maps that are there below are taken there, lest whole maps cross."""
        lower = set(nodes[:at])
        early = [
            node
            for node in nodes[at:]
            if node.op == "call_module"
            and isinstance(self.trunk.get_submodule(str(node.target)), GridMean)
            and lower >= set(node.all_input_nodes)
        ]
        rest = [node for node in nodes[at:] if node not in early]
        return [*nodes[:at], *early, *rest], at + len(early)


def shapes(below: nn.Module, size_px: int) -> tuple[tuple[int, ...], ...]:
    """Shape per image of everything that crosses; raises BadSetting where it is not one tensor row per image."""
    with torch.no_grad():
        device = next(below.parameters()).device
        found: Sequence[Any] = below(torch.zeros(2, 3, size_px, size_px, device=device))
    if not all(isinstance(x, Tensor) and x.ndim >= 1 and len(x) == 2 and x.is_floating_point() for x in found):
        raise BadSetting("More than features of the images crosses this boundary. Choose another one, or lp_ft or full")
    return tuple(tuple(x.shape[1:]) for x in found)


class _Tracer(fx.Tracer):
    """Follows the code of the trunk, of its network and of plain containers; blocks stay whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        name = module_qualified_name
        return name != "network" and not (isinstance(m, CONTAINERS) and name.count(".") <= DEEPEST)


def _look(trunk: nn.Module, names: Sequence[str], size_px: int) -> tuple[list[int], list[float]]:
    """Side of the maps that each layer gives (0: no maps), and what it costs."""
    sizes, costs, handles = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0), []
    training, device = trunk.training, next(trunk.parameters()).device
    counter = FlopCounterMode(display=False)

    def before(name: str) -> Any:
        return lambda *_: costs.__setitem__(name, costs[name] - counter.get_total_flops())

    def after(name: str) -> Any:
        def note(module: nn.Module, _args: Any, out: Any) -> None:
            costs[name] += counter.get_total_flops()
            maps = isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] > 1 and not isinstance(module, GridMean)
            sizes[name] = out.shape[2] if maps else 0

        return note

    for name in dict.fromkeys(names):
        module = trunk.get_submodule(name)
        handles += [module.register_forward_pre_hook(before(name)), module.register_forward_hook(after(name))]
    try:
        with torch.no_grad(), counter:
            trunk.eval()(torch.zeros(1, 3, size_px, size_px, device=device))
    finally:
        trunk.train(training)
        for handle in handles:
            handle.remove()
    return [sizes[name] for name in names], [costs[name] for name in names]


def _grouped(names: Sequence[str], sizes: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Runs of one size of maps; blocks where there are none or all are of one size. Layers without maps join."""
    maps = [size for size in sizes if size]
    if len(set(maps)) > 2:
        starts = [i for i in range(1, len(names)) if sizes[i] and sizes[i] != _before(sizes, i)]
    else:
        owners = [name.rpartition(".")[0] if name.rpartition(".")[2].isdigit() else "" for name in names]
        most = max(owners, key=lambda owner: owners.count(owner) if owner else 0)  # the list that has most blocks
        starts = [i for i, owner in enumerate(owners) if owner == most][1:] if most else list(range(1, len(names)))
    cuts = [0, *starts, len(names)]
    return tuple(tuple(names[a:b]) for a, b in itertools.pairwise(cuts))


def _before(sizes: Sequence[int], i: int) -> int:
    return next((size for size in reversed(sizes[:i]) if size), sizes[i])
