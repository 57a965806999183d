"""Heads in numpy against loops written from the formula."""

import numpy as np
import pytest

from topwork.nn.heads import activate, logits, nearest, probabilities, unit_rows
from topwork.types import Head


def rng():
    return np.random.default_rng(0)


def test_linear():
    x, w, b = (rng().normal(size=s).astype(np.float32) for s in ((5, 4), (4, 3), (3,)))
    head = Head("linear", {"weight": w, "bias": b}, temperature=2.0)
    z = np.array([[sum(x[i, d] * w[d, c] for d in range(4)) + b[c] for c in range(3)] for i in range(5)])
    np.testing.assert_allclose(logits(head, x), z, rtol=1e-5)
    p = np.exp(z / 2)
    np.testing.assert_allclose(probabilities(head, x), p / p.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_knn(activation):
    x = rng().normal(size=(7, 4)).astype(np.float32)
    bank = unit_rows(rng().normal(size=(11, 4)).astype(np.float32))
    votes = rng().uniform(0.1, 0.9, size=(11, 3)).astype(np.float32)
    head = Head("knn", {"bank": bank, "votes": votes}, activation, settings={"k": 3})
    for i in range(7):
        cosine = [float(x[i] @ row) / np.linalg.norm(x[i]) for row in bank]
        share = np.mean([votes[j] for j in sorted(range(11), key=lambda j: -cosine[j])[:3]], axis=0)
        z = np.log(share) if activation == "softmax" else np.log(share / (1 - share))
        np.testing.assert_allclose(logits(head, x)[i], z, rtol=1e-4, atol=1e-6)


def test_nearest_is_ordered_and_prefers_the_first_of_equals():
    s = np.float32([[0.1, 0.9, 0.5, 0.5, 0.2], [0.3, 0.1, 0.2, 0.4, 0.5]])
    assert nearest(s, 3).tolist() == [[1, 2, 3], [4, 3, 0]]
    assert nearest(s, 5).tolist() == [[1, 2, 3, 4, 0], [4, 3, 0, 2, 1]]


def test_zero_features_stay_finite():
    head = Head(
        "knn",
        {"bank": unit_rows(np.eye(3, dtype=np.float32)), "votes": np.full((3, 2), 0.5, np.float32)},
        settings={"k": 2},
    )
    assert np.isfinite(logits(head, np.zeros((1, 3), np.float32))).all()


def test_extreme_logits_do_not_overflow():
    z = np.float32([[1e4, -1e4, 0]])
    np.testing.assert_allclose(activate(z, "softmax"), [[1, 0, 0]])
    np.testing.assert_allclose(activate(z, "sigmoid"), [[1, 0, 0.5]])


def test_same_numbers_as_the_graph():
    ort = pytest.importorskip("onnxruntime")
    from topwork.nn import onnx_graph

    x = rng().normal(size=(9, 6)).astype(np.float32)
    bank, votes = unit_rows(rng().normal(size=(20, 6)).astype(np.float32)), rng().uniform(0.1, 0.9, (20, 3)).astype("f")
    linear = {"weight": rng().normal(size=(6, 3)).astype("f"), "bias": np.float32([1, 2, 3])}
    for activation in ("softmax", "sigmoid"):
        for head in (
            Head("linear", linear, activation, 1.5),
            Head("knn", {"bank": bank, "votes": votes}, activation, 0.7, settings={"k": 4}),
        ):
            graph = onnx_graph.head(head).SerializeToString()
            z, p = ort.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"features": x})
            np.testing.assert_allclose(z, logits(head, x), atol=1e-5)
            np.testing.assert_allclose(p, probabilities(head, x), atol=1e-6)
