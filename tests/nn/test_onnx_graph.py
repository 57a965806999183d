"""Graphs joined end to end, heads as graphs, sessions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import parser

from topwork.errors import BadWeights
from topwork.nn import heads, onnx_graph
from topwork.nn.session import session
from topwork.types import Head

rng = np.random.default_rng(0)
WEIGHT, BIAS = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
BANK = heads.unit_rows(rng.normal(size=(30, 6)).astype(np.float32))
VOTES = rng.uniform(0.01, 0.99, (30, 4)).astype(np.float32)
X = np.concatenate([rng.normal(size=(9, 6)), np.zeros((1, 6)), 1e4 * np.ones((1, 6))]).astype(np.float32)


def graph(body: str, name: str = "g", opset: int = 19, functions: str = "") -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "own" : 1]> {name} (float[N, 6] x) => (float[N, 6] y)'
        f" {{ {body} }} {functions}"
    )


def run(model: onnx.ModelProto, x: np.ndarray = X) -> list[np.ndarray]:
    running = session(onnx_graph.to_bytes(model), 1)
    return running.run(None, {running.get_inputs()[0].name: x})


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("kind", "arrays", "settings"),
    [
        ("linear", {"weight": WEIGHT, "bias": BIAS}, {}),
        ("knn", {"bank": BANK, "votes": VOTES}, {"k": 5}),
        ("knn", {"bank": BANK, "votes": VOTES}, {"k": 1}),
        ("knn", {"bank": BANK, "votes": VOTES}, {"k": 500}),
    ],
)
def test_head_is_the_numpy_head(kind, arrays, settings, activation):
    head = Head(kind, arrays, activation, temperature=1.7, settings=settings)
    model = onnx_graph.head(head)
    onnx.checker.check_model(model, full_check=True)
    z, p = run(model)
    x = X[:-1] if kind == "knn" else X  # a tie between all rows is broken by the last bit
    assert np.allclose(z[: len(x)], heads.logits(head, x), rtol=1e-5, atol=1e-5)
    assert np.allclose(p[: len(x)], heads.probabilities(head, x), atol=1e-5)
    assert [o.name for o in model.graph.output] == ["logits", "probabilities"]


def test_chain_is_one_after_the_other():
    square, shift = graph("t = Mul (x, x) y = Relu (t)"), graph("t = Neg (x) y = Exp (t)")
    head = onnx_graph.head(Head("linear", {"weight": WEIGHT, "bias": BIAS}))
    joined = onnx_graph.chain(square, shift, square, head)  # the same names everywhere, one graph twice
    onnx.checker.check_model(joined, full_check=True)
    assert [v.name for v in joined.graph.input] == ["x"]
    assert [v.name for v in joined.graph.output] == ["logits", "probabilities"]
    assert joined.ir_version == 9
    assert [(o.domain, o.version) for o in joined.opset_import if not o.domain] == [("", 19)]
    one = run(square, run(shift, run(square)[0])[0])[0]
    for ours, theirs in zip(run(joined), run(head, one), strict=True):
        assert np.allclose(ours, theirs, atol=1e-6)


def test_a_chain_can_be_a_link():
    a, b = graph("y = Neg (x)", "a"), graph("y = Exp (x)", "b")
    whole = onnx_graph.chain(onnx_graph.chain(a, b), a)
    assert np.allclose(run(whole)[0], -np.exp(-X))


def test_ends_must_fit():
    head = onnx_graph.head(Head("linear", {"weight": WEIGHT, "bias": BIAS}))
    with pytest.raises(BadWeights, match=r"2 outputs \(.*logits.*cannot feed 1 inputs"):
        onnx_graph.chain(head, graph("y = Neg (x)"))


def test_the_same_graphs_give_the_same_bytes_whoever_exported_them():
    a, b = graph("t = Mul (x, x) y = Relu (t)"), graph("t = Mul (x, x) y = Relu (t)")
    b.doc_string, b.producer_name, b.producer_version = "by me", "torch", "9"
    b.metadata_props.add(key="when", value="now")
    b.graph.doc_string = "/home/me"
    b.graph.node[0].doc_string = "File /home/me/model.py"
    b.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/me/model.py")
    b.graph.value_info.append(onnx.helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, None))
    first, again = (onnx_graph.to_bytes(onnx_graph.chain(m, graph("y = Neg (x)"))) for m in (a, b))
    assert first == again
    assert b"/home/me" not in again


def test_older_opsets_and_local_functions_are_brought_along():
    old = graph("s = ReduceSum <axes = [1], keepdims = 1> (x) y = Add (x, s)", opset=11)
    twice = '<domain: "own", opset_import: ["" : 19]> twice (a) => (b) { b = Add (a, a) }'
    joined = onnx_graph.chain(old, graph("y = own.twice (x)", functions=twice))
    assert not joined.functions
    assert np.allclose(run(joined)[0], 2 * (X + X.sum(1, keepdims=True)), rtol=1e-5, atol=1e-5)


def test_half_precision_weights_stay_half():
    half = WEIGHT[:, :1].astype(np.float16).T  # (1, 6)
    model = graph("wide = Cast <to = 1> (w) y = Mul (x, wide)")
    model.graph.initializer.append(onnx.numpy_helper.from_array(half, "w"))
    joined = onnx_graph.chain(graph("y = Neg (x)"), model)
    assert [t.data_type for t in joined.graph.initializer] == [onnx.TensorProto.FLOAT16]
    assert np.allclose(run(joined)[0], -X * half.astype(np.float32))


def test_too_much_for_one_file_is_said(monkeypatch):
    monkeypatch.setattr(onnx_graph, "LARGEST_BYTES", 100)
    head = Head("linear", {"weight": np.zeros((6, 40), np.float32), "bias": np.zeros(40, np.float32)})
    with pytest.raises(BadWeights, match="at most"):
        onnx_graph.chain(onnx_graph.head(head))


def test_a_session_needs_no_onnx(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_graph.to_bytes(graph("y = Neg (x)")))
    code = (
        "import sys, numpy; from topwork.nn.session import session; "
        f"(y,) = session({str(path)!r}, threads=1).run(None, {{'x': numpy.ones((2, 6), numpy.float32)}}); "
        "assert (y == -1).all() and not {'onnx', 'torch', 'sklearn', 'pyarrow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_no_graph_is_said(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(BadWeights, match=f"'{path}' is not a graph"):
        session(path)
    with pytest.raises(BadWeights, match="A model is not a graph"):
        session(b"not a graph")
