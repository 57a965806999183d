"""A small version of benchmarks/coverage.py: intervals cover what they promise, within the noise of few simulations."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("benchmark_coverage", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.TRUTH = 60_000
    return module


def nearest_mean(x, y, strength):
    centres = np.stack([x[y == c].mean(0) for c in range(y.max() + 1)])

    def predict(asked):
        z = asked @ centres.T - (centres**2).sum(1) / 2
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    return predict


def test_held_out_sets(benchmark):
    found = benchmark.report("binary", benchmark.held_out((80, 2, 1.5, 0.5), benchmark.draw, 300))
    assert len(found) == 6
    assert all(90.5 <= share <= 99 for share in found.values()), found


def test_several_labels(benchmark):
    found = benchmark.report("several", benchmark.held_out((80, 3, 2.0, 0), benchmark.draw_several, 300))
    assert all(90.5 <= share <= 99 for share in found.values()), found


def test_numbers(benchmark):
    for setting in ((50, 0.0, 0.9, 0.3), (200, 0.5, 0.9, 0.2)):
        found = benchmark.report("numbers", benchmark.held_out(setting, benchmark.draw_numbers, 300))
        assert set(found) == {"r2", "mae", "rmse", "spearman"}
        assert all(90 <= share <= 99 for share in found.values()), found
    found = benchmark.report("paired numbers", benchmark.paired_numbers(50, 0.0, 0.3, 300))
    assert all(91 <= share <= 100 for share in found.values()), found


def test_paired_differences(benchmark):
    found = benchmark.report("paired", benchmark.paired(60, 0.1, 0.1, 150))
    assert all(90 <= share <= 100 for share in found.values()), found


def test_cross_validation(benchmark):
    found = benchmark.report("training", benchmark.cross_validation((60, 10, 2, 2.0, 1.0, 5, 2), 100, nearest_mean))
    assert 90 <= found["cross-validated accuracy, average model"] <= 100
    assert 90 <= found["cross-validated accuracy, this model"] <= 100


def test_out_of_fold_pairs_need_widening(benchmark):
    found = benchmark.report("pair", benchmark.cross_validated_pair(60, 20, 2.0, 5, 150, nearest_mean))
    assert found["out-of-fold McNemar, widened"] >= 93
    assert found["out-of-fold difference, widened"] > found["out-of-fold difference, not widened"]


@pytest.mark.slow
def test_forecast(benchmark):
    found = benchmark.report("curve", benchmark.forecast(200, 30, 3, 2.5, 30))
    assert found["forecast at twice the labels"] >= 80
