"""The choice between probes."""

import numpy as np
import pytest

from topwork.adaptation.probe import choose
from topwork.adaptation.probe._judged import first_of_the_best
from topwork.errors import BadSetting, UnknownName


def data(N=120, D=10, C=3, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = (np.arange(N) % C).astype(np.int32)
    x = rng.normal(size=(N, D)) + spread * rng.normal(size=(C, D))[y]
    return x.astype(np.float32), y, rng.permutation(N) % 5


def test_auto_tries_all_and_says_why():
    best, probes = choose(*data(), 3)
    assert [p.head.method.split("(")[0] for p in probes] == ["logistic", "ridge", "nearest_mean", "knn"]
    assert all(f"{p.head.method.split('(')[0]} 0." in best.reason for p in probes)
    assert "best temperature" in best.reason
    assert "\n" not in best.reason


def test_specs_and_single_methods():
    best, probes = choose(*data(), 3, methods=("logistic(l2=0.5)",))
    assert best.head.method == "logistic(l2=0.5)"
    assert len(probes) == 1
    assert best.reason == probes[0].reason
    with pytest.raises(UnknownName, match="logistic"):
        choose(*data(), 3, methods=("logistik",))


def test_rings_go_to_neighbours_and_blobs_to_lines():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 400)
    y = (np.floor(angle / (np.pi / 4)) % 2).astype(np.int32)  # sectors in turn: no line separates them
    x = np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    best, _ = choose(x, y, np.arange(400) % 5, 2)
    assert best.head.kind == "knn"
    assert "knn: lowest" in best.reason
    best, _ = choose(*data(spread=3.0), 3)
    assert best.head.method.startswith("logistic")


def test_ties_go_to_the_first():
    rng = np.random.default_rng(0)
    base = rng.exponential(size=200)
    noise = 0.3 * rng.normal(size=200)
    assert first_of_the_best([base, base + noise - noise.mean() - 0.01]) == 0
    assert first_of_the_best([base, base - 0.2 + 0.01 * noise]) == 1
    assert first_of_the_best([base, base]) == 0


def test_the_floor_loses():
    best, probes = choose(*data(spread=2.0), 3, methods=("majority", "auto"))
    assert probes[0].head.method == "majority"
    assert best.head.method != "majority"


def test_what_cannot_work_is_left_out_with_its_reason(monkeypatch):
    from topwork.adaptation.probe import knn

    monkeypatch.setattr(knn, "LARGEST", 50)
    best, probes = choose(*data(), 3)
    assert len(probes) == 3
    assert "knn left out: knn keeps every training item" in best.reason
    with pytest.raises(BadSetting, match="more than 50"):
        choose(*data(), 3, methods=("knn",))


def test_several_labels():
    x, y, folds = data()
    best, probes = choose(x, np.eye(3, dtype=bool)[y], folds, 3)
    assert len(probes) == 4
    assert best.head.activation == "sigmoid"


def test_progress_is_told():
    told = []
    choose(*data(), 3, progress=lambda *a: told.append(a))
    assert told[0][1:] == (0, 4)
    assert told[-1][1:] == (4, 4)
