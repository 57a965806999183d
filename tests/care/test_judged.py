import numpy as np
import pyarrow as pa
import pytest

from topwork.care import judged
from topwork.care.sight import Sight
from topwork.data.outliers import unit
from topwork.evaluation.calibrate import cross_fitted
from topwork.nn.kernel_ridge import left_out
from topwork.types import Dataset, Watch


def sight(x, y, twins=None):
    """Of features and classes, as if a backbone had seen them."""
    N, C = len(y), int(y.max()) + 1
    table = pa.table(
        {
            "item": [f"{row}.png" for row in range(N)],
            "target": pa.array(y, pa.int32()),
            "split": pa.array([None] * N, pa.string()).dictionary_encode(),
            "content": pa.array([row.to_bytes(16, "big") for row in range(N)], pa.binary(16)),
            "twin": pa.array(range(N) if twins is None else twins, pa.int32()),
        }
    )
    names = tuple(f"class {c}" for c in range(C))
    return Sight(Dataset(table, "/", names), np.arange(N), x, unit(x), "made", None, 0, Watch())


def bent(seed=0, items=300):
    """Two classes that no line tells apart well, a tenth of the labels flipped."""
    draw = np.random.default_rng(seed)
    x = draw.normal(0, 1, (items, 4)).astype(np.float32)
    y = ((x[:, 0] * x[:, 1] + 0.7 * x[:, 2]) > 0).astype(int)
    wrong = draw.random(items) < 0.1
    return x, np.where(wrong, 1 - y, y), wrong


def test_it_is_the_mean_of_probe_and_kernel():
    x, y, _ = bent()
    seen = sight(x, y)
    found = judged.judge(seen)
    line = judged.probe(seen, found.at, y, found.folds, "logistic")
    kernel = cross_fitted(left_out(x, y, np.arange(300), 2).astype(np.float32), y, found.folds)
    assert np.allclose(found.p, (line.p + kernel) / 2)
    assert found.accuracy == pytest.approx((found.p.argmax(1) == y).mean())


def test_more_items_than_the_kernel_takes_are_left_to_the_probe(monkeypatch):
    x, y, _ = bent()
    seen = sight(x, y)
    monkeypatch.setattr(judged, "KERNEL_ITEMS", 299)
    found = judged.judge(seen)
    assert np.array_equal(found.p, judged.probe(seen, found.at, y, found.folds, "logistic").p)


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_finds_more_flips_than_the_probe(seed):
    from sklearn.metrics import average_precision_score

    x, y, wrong = bent(seed)
    seen = sight(x, y)
    found = judged.judge(seen)
    line = judged.probe(seen, found.at, y, found.folds, "logistic")
    mean, alone = (average_precision_score(wrong, -one.p[np.arange(300), y]) for one in (found, line))
    assert mean > alone + 0.05


def test_a_copy_does_not_vouch_for_its_twin():
    """Features say nothing, each item is there twice: whoever sees the twin is always right."""
    draw = np.random.default_rng(3)
    x = np.repeat(draw.normal(0, 1, (100, 6)), 2, 0).astype(np.float32)
    y = np.repeat(draw.integers(0, 2, 100), 2)
    assert judged.judge(sight(x, y, np.arange(200) // 2)).accuracy < 0.65
    assert judged.judge(sight(x, y)).accuracy > 0.9
