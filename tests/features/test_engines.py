import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from topwork.backbones import find
from topwork.errors import BadSetting, BadWeights, MissingExtra
from topwork.features import engines
from topwork.features.engines import OnnxEngine, Pick, TorchEngine, pick, start
from topwork.store.cache import open_cache

SIDE = find("bundled").card.preprocess.crop_px
CROPS = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
needs_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="the train extra is not installed")


@pytest.fixture(scope="module")
def backbone():
    return find("bundled")


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setattr(engines, "_has_torch", lambda: False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # another test may have loaded it


class Broken:
    """A backbone that onnxruntime, or torch, cannot take."""

    def __init__(self, backbone, graph=True, module=True):
        self.card, self._backbone, self._graph, self._module = backbone.card, backbone, graph, module

    def graph(self):
        if not self._graph:
            raise BadWeights("too large for one file")
        return self._backbone.graph()

    def module(self):
        if not self._module:
            raise BadSetting("an ONNX file has no module")
        return self._backbone.module()


def begin(backbone, store=None, engine="auto", many=True):
    picked = pick(backbone.card, engine, store, 2)
    return start(picked, backbone, store, lambda: CROPS, many)


def test_engines_by_name(backbone):
    with pytest.raises(BadSetting, match=r"No engine 'tensorflow'\. Expected one of: auto, onnxruntime, torch"):
        pick(backbone.card, "tensorflow", None, 2)
    chosen = pick(backbone.card, "onnxruntime", None, 2)
    assert (chosen.kind, chosen.reason, chosen.final) == ("onnxruntime", "as asked", True)
    assert str(chosen).endswith("CPU, 2 threads")
    assert chosen.key.startswith("onnxruntime-1.")
    assert chosen.key.endswith("-cpu")


def test_threads_become_workers_with_their_share():
    shares = [(threads, (Pick("onnxruntime", "cpu", threads, "").workers)) for threads in (1, 2, 8, 64)]
    assert shares == [(1, 1), (2, 2), (8, 8), (64, 8)]


def test_without_torch(backbone, no_torch):
    runner, chosen = begin(backbone)
    assert isinstance(runner, OnnxEngine)
    assert "needs no torch" in chosen.reason
    with pytest.raises(MissingExtra, match="topwork\\[train\\]"):
        pick(backbone.card, "torch", None, 2)
    with pytest.raises(BadWeights, match="too large"):
        begin(Broken(backbone, graph=False))


def test_stopped_engines_run_no_more(backbone):
    runner, _ = begin(backbone, engine="onnxruntime")
    assert runner.forward(CROPS).shape == (4, backbone.card.features)
    runner.stop()
    with pytest.raises(Exception, match="terminate"):
        runner.forward(CROPS)


@needs_torch
def test_torch_agrees(backbone, monkeypatch):
    monkeypatch.setenv("TOPWORK_DEVICE", "cpu")
    onnx, _ = begin(backbone, engine="onnxruntime")
    torch, chosen = begin(backbone, engine="torch")
    expected = onnx.forward(CROPS)
    np.testing.assert_allclose(torch.forward(CROPS), expected, atol=1e-4 * np.abs(expected).max())
    assert chosen.key.startswith("torch-")
    torch.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        torch.forward(CROPS)


@needs_torch
@pytest.mark.parametrize(("torch_speed", "winner"), [(300, "torch"), (105, "onnxruntime")])
def test_the_faster_one_is_measured_named_and_remembered(backbone, monkeypatch, torch_speed, winner):
    import torch  # noqa: F401  loaded, as after an export

    monkeypatch.setenv("TOPWORK_DEVICE", "cpu")
    monkeypatch.setattr(
        engines, "images_per_second", lambda engine, crops: torch_speed if isinstance(engine, TorchEngine) else 100
    )
    _, chosen = begin(backbone, open_cache())
    assert chosen.kind == winner
    assert chosen.reason == f"onnxruntime 100 images/s, torch {torch_speed} on the first images"
    monkeypatch.setattr(engines, "images_per_second", None)
    runner, again = begin(backbone, open_cache())
    assert (again.kind, again.key) == (winner, chosen.key)
    assert again.reason == f"{chosen.reason} (measured in an earlier run)"
    assert isinstance(runner, TorchEngine if winner == "torch" else OnnxEngine)
    monkeypatch.setattr(engines, "_has_torch", lambda: False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # another test may have loaded it
    assert pick(backbone.card, "auto", open_cache(), 2).kind == "onnxruntime"


@needs_torch
def test_a_few_images_are_not_worth_measuring(backbone, monkeypatch):
    import torch  # noqa: F401

    monkeypatch.setenv("TOPWORK_DEVICE", "cpu")
    monkeypatch.setattr(engines, "images_per_second", None)
    assert begin(backbone, open_cache(), many=False)[1].kind == "onnxruntime"
    assert open_cache().info()["namespaces"] == {}


@needs_torch
def test_each_takes_over_where_the_other_cannot(backbone, monkeypatch):
    monkeypatch.setenv("TOPWORK_DEVICE", "cpu")
    _, chosen = begin(Broken(backbone, graph=False), open_cache())
    assert (chosen.kind, chosen.reason) == ("torch", "onnxruntime cannot run it: too large for one file")
    assert pick(backbone.card, "auto", open_cache(), 2).kind == "torch"
    monkeypatch.setattr(engines, "_gpu_is_likely", lambda: True)
    monkeypatch.setattr(engines, "_gpu", lambda: "cuda")
    _, chosen = begin(Broken(backbone, module=False))
    assert (chosen.kind, chosen.device) == ("onnxruntime", "cpu")
    assert chosen.reason == "torch cannot run it: an ONNX file has no module"
    with pytest.raises(BadWeights):
        begin(Broken(backbone, graph=False), engine="onnxruntime")
    with pytest.raises(BadSetting):
        begin(Broken(backbone, module=False), engine="torch")


def test_throughput_is_a_rate(backbone):
    runner, _ = begin(backbone, engine="onnxruntime")
    assert 1 < engines.images_per_second(runner, CROPS) < 1e6


def test_picking_loads_nothing_heavy(backbone):
    code = (
        "import sys; from topwork.backbones import find; from topwork.features import engines\n"
        "engines.pick(find('bundled').card, 'auto', None, 2)\n"
        "assert not {'torch', 'onnx', 'sklearn'} & set(sys.modules), sys.modules.keys()"
    )
    environment = {"PATH": "", "TOPWORK_DEVICE": "cpu"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False).returncode == 0
