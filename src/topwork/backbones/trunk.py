"""Torch networks without their classifier, filled with checked weights, and exported to ONNX.

    trunk = build(architecture)          images float32 (N, 3, S, S) -> pooled features float32 (N, D)
    fill(network, load(file), where)     names and shapes must agree
    export(trunk, size_px) -> bytes      opset 19, dynamic N, compared with torch on random images

Features are what the network's own last linear layer reads: timm's pre_logits (and grids of earlier stages if asked);
for torchvision the input of the last Linear of fc, classifier, head or heads, and the mean of the last feature map
where there is no Linear (SqueezeNet).

This file needs torch; only `torch_backbone.py` and `sources/` import it, when a module is asked for.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from topwork.backbones.architecture import Architecture
from topwork.errors import BadWeights, ProofFailed
from topwork.nn import onnx_graph
from topwork.nn.session import session
from topwork.store.weights import check_shapes

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4  # of the largest feature: float32 in another order of summation stays near 1e-6


class TimmTrunk(nn.Module):
    """A timm network up to the features that its classifier reads, and means over grids of earlier stages.

    `grids` {stage: g} appends the means of g x g equal cells of that stage's maps (channels x g x g numbers): edges,
    textures and where they are, which the last features have forgotten. Evci et al., Head2Toe, ICML 2022.
    """

    def __init__(self, network: nn.Module, grids: Mapping[int, int] | None = None) -> None:
        super().__init__()
        network.reset_classifier(0)  # type: ignore[operator]
        self.network = network
        self.grids = dict(sorted((grids or {}).items()))
        self.pools = nn.ModuleList(GridMean(cells) for cells in self.grids.values())

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, D)."""
        if not self.grids:
            maps, stages = self.network.forward_features(images), []  # type: ignore[operator]
        else:
            maps, stages = self.network.forward_intermediates(images, indices=list(self.grids))  # type: ignore[operator]
        parts = [self.network.forward_head(maps, pre_logits=True)]  # type: ignore[operator]
        parts += [pool(stage) for pool, stage in zip(self.pools, stages, strict=True)]
        return torch.cat([part.flatten(1) for part in parts], 1)


class GridMean(nn.Module):
    """Means over g x g equal cells."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, g, g)."""
        if maps.shape[-1] % self.cells:
            raise BadWeights(f"{self.cells} x {self.cells} cells do not divide maps of {maps.shape[-1]} px evenly")
        return nn.functional.avg_pool2d(maps, maps.shape[-1] // self.cells)


class TorchvisionTrunk(nn.Module):
    """A torchvision network up to the features that its last linear layer reads."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.pool_maps = not _drop_last_linear(network)
        self.network = network.features if self.pool_maps else network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, D)."""
        features = self.network(images)  # type: ignore[operator]
        return features.mean((2, 3)) if self.pool_maps else features.flatten(1)


def build(
    architecture: Architecture, fill_in: Callable[[nn.Module], None], grids: Mapping[int, int] | None = None
) -> nn.Module:
    """The trunk of an architecture; `fill_in` puts weights into the whole network before its top is taken off.

    `untrained()` of what is given back is the same trunk as its authors begin to train it.
    """
    if grids and architecture.library != "timm":
        raise BadWeights(f"{architecture}: grids of earlier stages are known for timm networks only")
    network = _timm(architecture) if architecture.library == "timm" else _torchvision(architecture)
    fill_in(network)
    trunk = (TimmTrunk(network, grids) if architecture.library == "timm" else TorchvisionTrunk(network)).eval()
    trunk.untrained = functools.partial(build, architecture, _as_begun, grids)  # type: ignore[assignment]
    return trunk


def _as_begun(network: nn.Module) -> None:
    """The random weights that its authors begin with."""


def load(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, all of them finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadWeights(f"{file} is not a readable safetensors file: {error}") from error
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise BadWeights(
            f"{file}: {len(broken)} of {len(state)} tensors hold values that are not finite, the first {broken[0]}. "
            "The training diverged or the file is damaged: take another checkpoint"
        )
    return state


def fill(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict; says on both sides what does not fit, and what would mend it."""
    own = network.state_dict()
    # BatchNorm counts its batches for training only; files that went through other frameworks lack the counter
    state = {**{name: own[name] for name in own if name.endswith("num_batches_tracked")}, **state}
    expected, found = ({n: tuple(v.shape) for n, v in tensors.items()} for tensors in (own, state))
    try:
        check_shapes(expected, found, where)
    except BadWeights as error:
        raise BadWeights(f"{error}. {advice(expected, found)}") from error
    network.load_state_dict(state)


def translated(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights under their authors' names, in the names of timm's network: timm knows how."""
    if network.state_dict().keys() <= state.keys():
        return state
    translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    return translate(dict(state), network) if translate else state


def advice(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """What would make the tensors of a file fit an architecture: the likeliest mistakes first."""
    both = f"The architecture has {_first(expected)}; the file has {_first(found)}. "
    surplus = [name for name in found if name not in expected]
    for prefix in sorted({name.partition(".")[0] + "." for name in surplus}):
        bare = {name.removeprefix(prefix): shape for name, shape in found.items()}
        if _fits(expected, bare) > max(_fits(expected, found), len(expected) // 2):
            return f"{both}Its names begin with '{prefix}': save them without it"
    others = [name for name in (*expected, *surplus) if expected.get(name) != found.get(name)]
    kernels = [(expected[n], found[n]) for n in others if len(expected.get(n, ())) == 4 == len(found.get(n, ()))]
    if len(others) == 1 and kernels:
        own, its = kernels[0]
        return f"{both}It was trained on images of {its[1]} channels, not {own[1]}: only those with 3 can be used here"
    if len({name.partition(".")[0] for name in others}) == 1 and len(others) < len(expected) // 2:
        classes = next((found[name][0] for name in others if found.get(name)), 0)
        return (
            f"{both}Only '{others[0].partition('.')[0]}' differs: name the classes that it was trained for in the "
            f"architecture, num_classes={classes}"
        )
    return f"{both}Name the architecture, and its options, that these weights were trained with"


def _fits(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> int:
    return sum(found.get(name) == shape for name, shape in expected.items())


def export(trunk: nn.Module, size_px: int) -> bytes:
    """The trunk as a self-contained ONNX graph, proven against torch on random images."""
    trunk = trunk.eval()
    images = torch.randn(3, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    with quiet(), torch.no_grad():
        expected = _features(trunk, images)  # (3, D)
    return _exported(trunk, images, ("features",), (expected,))


def export_below(below: nn.Module, size_px: int) -> bytes:
    """What lies below a boundary, images -> everything that crosses it, as ONNX; proven in the same way."""
    images = torch.randn(3, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = tuple(x.numpy() for x in below.eval()(images))
    return _exported(below, images, tuple(f"crossing{i}" for i in range(len(expected))), expected)


def _exported(module: nn.Module, images: Tensor, outputs: tuple[str, ...], expected: tuple[np.ndarray, ...]) -> bytes:
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (images[:2],),
            dynamo=True,
            opset_version=onnx_graph.OPSET,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            input_names=["images"],
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    graph = onnx_graph.to_bytes(named(onnx_graph.plain(program.model_proto)))
    _prove(graph, images.numpy(), expected)
    return graph


def _features(trunk: nn.Module, images: Tensor) -> np.ndarray:
    """(N, 3, S, S) -> (N, D), where the network takes such images at all."""
    try:
        features = trunk(images).float().numpy()
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BadWeights(
            f"The network does not take images of {images.shape[-1]} x {images.shape[-1]} px with 3 channels, whatever "
            f"its card says: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    if features.ndim != 2 or not np.isfinite(features).all():
        raise BadWeights(
            f"The network gives {list(features.shape)} for {len(images)} images, or values that are not finite. "
            "Expected finite features (N, D)"
        )
    return features


def _first(names: Mapping[str, object]) -> str:
    """How many, and the first few; the counters of BatchNorm, which `fill` adds, aside."""
    names = {name: None for name in names if not name.endswith("num_batches_tracked")}
    return f"{len(names)} tensors ({', '.join(list(names)[:3])}{', ...' if len(names) > 3 else ''})"


def _timm(architecture: Architecture) -> nn.Module:
    import timm

    try:
        with quiet():
            return timm.create_model(architecture.name, pretrained=False, **architecture.options)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BadWeights(f"timm {timm.__version__} cannot build {architecture}: {error}") from error


def _torchvision(architecture: Architecture) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if architecture.name not in known:
        raise BadWeights(f"torchvision {torchvision.__version__} has no image classifier '{architecture.name}'")
    options = dict(architecture.options)
    if architecture.name in ("googlenet", "inception_v3"):
        options.setdefault("init_weights", False)  # weights follow; without it both warn
    try:
        return torchvision.models.get_model(architecture.name, weights=None, **options)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BadWeights(f"torchvision {torchvision.__version__} cannot build {architecture}: {error}") from error


def _drop_last_linear(network: nn.Module) -> bool:
    """Replace the last Linear of the network's top by the identity; False where there is none."""
    for top in ("fc", "classifier", "heads", "head"):
        layers = [n for n, layer in network.named_modules() if n.split(".")[0] == top and isinstance(layer, nn.Linear)]
        if layers:
            parent, _, name = layers[-1].rpartition(".")
            setattr(network.get_submodule(parent), name, nn.Identity())
            return True
    if not hasattr(network, "features"):
        raise BadWeights(
            f"{type(network).__name__} has neither a last Linear layer nor `features` to take features from"
        )
    return False


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Names from the order of the graph; the exporter's own hold counters of the process that it ran in."""
    graph = model.graph
    graph.name = "trunk"
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return (
            model  # a subgraph sees outer names; renaming both is not worth it for bytes that are stable within a cache
        )
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    for i, tensor in enumerate(graph.initializer):
        name = tensor.name.removeprefix("network.") if "." in tensor.name else f"const{i}"
        names[tensor.name] = tensor.name = name
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{i}"
        for j, output in enumerate(node.output):
            names.setdefault(output, f"{node.name}.{j}" if j else node.name)
        node.input[:] = [names[name] if name else "" for name in node.input]
        node.output[:] = [names[name] if name else "" for name in node.output]
    return model


def _prove(graph: bytes, images: np.ndarray, expected: tuple[np.ndarray, ...]) -> None:
    running = session(graph)
    for batch in (images, images[:1]):
        for found, wanted in zip(running.run(None, {"images": batch}), expected, strict=True):
            features = np.asarray(found)
            gap = np.abs(features - wanted[: len(batch)]).max() / max(np.abs(wanted).max(), 1e-12)
            if features.dtype != np.float32 or not gap <= TOLERANCE:  # a NaN is no agreement
                raise ProofFailed(
                    f"The exported graph differs from torch by {gap:.1e} of the largest feature (at most "
                    f"{TOLERANCE:.0e} allowed, batch {len(batch)}, {features.dtype}). Choose another backbone and "
                    "report this one"
                )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter talks to its developers, through warnings and loggers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "timm")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
