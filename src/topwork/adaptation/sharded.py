"""A model of which every process keeps a part: FSDP2, where a config of accelerate asks for it.

    w = (w_1, .., w_R)        process r keeps w_r, its part g_r of the mean of all processes' gradients, and its moments

Weights, their averages and the optimiser's moments are cut along the first axis into R parts, one for each process,
and weights are gathered for the time of a step. What leaves a training is whole: checkpoints, so that any number of
processes can go on with them, and the model that is handed back. (Rajbhandari et al., ZeRO, SC 2020; Zhao et al.,
PyTorch FSDP, VLDB 2023.)
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from topwork import processes
from topwork.nn.ema import tensors_of

M = TypeVar("M", bound=nn.Module)


def asked() -> bool:
    """Whether this run keeps its models in parts."""
    return processes.count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def options() -> dict[str, Any]:
    """What an Accelerator is told: the config's settings, but that all weights are gathered at once, for one step.

    Losses look at weights, too (L2-SP), when the layer that they belong to has been left; so layers are no units of
    their own. And every process has read the whole model: nothing is to be sent.
    """
    if not asked():
        return {}
    one = {"auto_wrap_policy": "NO_WRAP", "reshard_after_forward": False, "activation_checkpointing": False}
    return {"fsdp_plugin": FullyShardedDataParallelPlugin(**one, cpu_ram_efficient_loading=False)}


def settle(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin | None) -> None:
    """Accelerate shares models between GPUs alone; torch does it between processors, too."""
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin


def laid_out(model: M) -> M:
    """Row by row, as torch cuts tensors."""
    return model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def whole(tensor: Tensor) -> Tensor:
    """All of it, in the processor's memory where it was in parts; every process has to ask."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def like(kept: Tensor, live: Tensor) -> Tensor:
    """A whole tensor in parts, if this one is."""
    if not isinstance(live, DTensor) or kept.shape != live.shape:
        return kept
    return distribute_tensor(kept.to(live.device), live.device_mesh, live.placements, src_data_rank=None)


@torch.no_grad()
def fill(target: nn.Module, source: nn.Module) -> None:
    """The whole model's values from one in parts."""
    live = tensors_of(source)
    for name, tensor in tensors_of(target).items():
        tensor.copy_(whole(live[name]))
