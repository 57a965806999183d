"""Logits and probabilities of a head, in numpy: the plain meaning that the ONNX graph is compared with.

linear   z = x @ weight + bias
knn      s = mean of the votes of the k rows of the bank most similar to x / ||x||         votes in (0, 1)
         z = log s  (softmax)   or   log s - log(1 - s)  (sigmoid)
         z = s          (identity: votes are numbers)
probabilities = activation(z / temperature); identity: z is the number itself
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadSetting
from topwork.types import Head

ROWS = 1024  # items per block: similarities (ROWS, M) stay small
NORM_FLOOR = 1e-12  # a feature vector of zeros stays zeros


def logits(head: Head, x: Any) -> NDArray[np.float32]:
    """Logits (N, C), before the temperature, for features x (N, D), a csr matrix if they are sparse."""
    x = x.astype(np.float32, copy=False) if hasattr(x, "tocsr") else np.asarray(x, np.float32)
    if head.kind == "linear":
        return x @ head.arrays["weight"] + head.arrays["bias"]
    if hasattr(x, "tocsr"):
        raise BadSetting("k-NN reads dense features; sparse ones need a linear head: sparse_logistic")
    bank, votes, k = head.arrays["bank"], head.arrays["votes"], int(head.settings["k"])
    z = np.empty((len(x), votes.shape[1]), np.float32)
    for start in range(0, len(x), ROWS):
        similarity = unit_rows(x[start : start + ROWS]) @ bank.T  # (B, M)
        share = votes[nearest(similarity, k)].mean(axis=1)  # (B, C)
        z[start : start + ROWS] = share if head.activation == "identity" else share_logits(share, head.activation)
    return z


def probabilities(head: Head, x: Any) -> NDArray[np.float32]:
    """Probabilities (N, C) for features x (N, D)."""
    return activate(logits(head, x), head.activation, head.temperature)


def activate(z: NDArray[np.float32], activation: str, temperature: float = 1.0) -> NDArray[np.float32]:
    """Softmax over the last axis, a sigmoid for every label, or nothing at all, of z / temperature."""
    z = z / np.float32(temperature)
    if activation == "identity":
        return z
    if activation == "sigmoid":
        small = np.exp(-np.abs(z))
        return (np.where(z >= 0, 1, small) / (1 + small)).astype(np.float32)
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def unit_rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length 1."""
    return x / np.maximum(np.sqrt(np.einsum("nd,nd->n", x, x)), NORM_FLOOR)[:, None]


def nearest(similarity: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Columns (B, k) of the k largest values of every row, largest first, the first column first among equals."""
    if k < similarity.shape[1]:
        found = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    else:
        found = np.broadcast_to(np.arange(similarity.shape[1]), similarity.shape)
    found = np.sort(found, axis=1)
    order = np.argsort(-np.take_along_axis(similarity, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def share_logits(share: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    """Logits of smoothed shares."""
    return np.log(share) - np.log(1 - share) if activation == "sigmoid" else np.log(share)
