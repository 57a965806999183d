"""Batch norm over the items of all processes: one process with the whole batch would see the same statistics.

    m = sum_r n_r m_r / n        v = sum_r n_r (v_r + (m_r - m)^2) / n        y = (x - m) / sqrt(v + eps) w + b

n_r, m_r, v_r: values per channel in process r, their mean and variance; n = sum_r n_r. Gradients go through the
statistics of all processes, as in torch's SyncBatchNorm, which runs on GPUs alone and replaces the layers; here every
call of `torch.nn.functional.batch_norm` in training is caught, so that layers of any library keep their kind and name.
(Chan, Golub & LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from topwork import processes


@contextlib.contextmanager
def over_processes() -> Iterator[None]:
    """A block whose batch norms share their statistics; one process alone notices nothing."""
    if processes.count() == 1:
        yield
        return
    with _Caught():
        yield


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` of x (B, C, ...), statistics over all processes while training."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    C, over = x.shape[1], [d for d in range(x.ndim) if d != 1]
    exact = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    own_var, own_mean = torch.var_mean(exact, over, correction=0)  # (C,)
    n = torch.full_like(own_mean, x.numel() // C)
    ns, means, variances = _everybody(torch.stack([n, own_mean, own_var])).unbind(1)  # (R, C) each
    total = ns.sum(0)  # (C,)
    mean = (ns * means).sum(0) / total
    var = (ns * (variances + (means - mean) ** 2)).sum(0) / total
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * total / (total - 1).clamp(min=1)).to(running_var.dtype), momentum)
    each = (1, C, *[1] * (x.ndim - 2))
    scale = torch.rsqrt(var + eps) * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    return (x * scale.view(each) + shift.view(each)).to(x.dtype)


def _everybody(own: Tensor) -> Tensor:
    """(R, ...) what each process has, with gradients that come back to it."""
    places = torch.zeros(processes.count(), *own.shape, dtype=own.dtype, device=own.device)
    places[processes.rank()] = own
    return _Sum.apply(places)  # type: ignore[no-any-return]


class _Sum(torch.autograd.Function):
    """Sum over all processes, of values and of gradients alike."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        total = grad.clone()
        dist.all_reduce(total)
        return total


class _Caught(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
