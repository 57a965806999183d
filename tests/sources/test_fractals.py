"""Fractals are drawn: the same pictures for the same names, classes that can be told apart."""

import numpy as np
import pytest

import topwork
from topwork import sources
from topwork.errors import BadData, BadSetting
from topwork.nn import ifs
from topwork.sources import fractals
from topwork.sources.fractals import Fractals, frames

SMALL = "fractals:classes=12,per_class=20"
PLAIN = f"{SMALL},several=1,colour=false,turn=0,vary=0.05"


def test_names_and_classes():
    data = sources.read("fractals:classes=3,per_class=2")
    assert data.labels == ("class_0000", "class_0001", "class_0002")
    assert data.table["item"].to_pylist()[:3] == ["class_0000/000000", "class_0000/000001", "class_0001/000000"]
    assert data.targets().tolist() == [0, 0, 1, 1, 2, 2]
    assert data.table["split"].null_count == 6


def test_the_root_names_every_option_and_reads_back():
    data = sources.read("fractals: per_class=2, classes=3,colour=TRUE")
    assert data.root == (
        "fractals:classes=3,per_class=2,colour=true,background=true,several=1,maps=8,coverage=0.2,vary=0.1,"
        "turn=20,one=0,seed=0"
    )
    again = sources.read(data.root)
    assert again.root == data.root
    assert again.table == data.table
    assert len(sources.read("fractals:")) == 1_000_000


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("fractals:class=3", r"no option 'class'\. Its options: classes=1000, per_class=1000, colour=false, "),
        ("fractals:classes", "classes=: expected a whole number"),
        ("fractals:classes=2.5", r"classes=2\.5: expected a whole number"),
        ("fractals:vary=lots", "vary=lots: expected a number"),
        ("fractals:colour=1", "colour=1: expected true or false"),
        ("fractals:classes=1,vary=9", r"classes=1 \(at least 2\), vary=9\.0 \(0 to 0\.5\)"),
        ("fractals:vary=nan", "vary=nan: expected a number"),
        ("fractals:classes=100000", "at most 10,000,000 pictures"),
    ],
)
def test_bad_options(uri, said):
    with pytest.raises(BadSetting, match=said):
        sources.read(uri)


@pytest.mark.parametrize("uri", [f"{SMALL},colour=true,several=3", PLAIN, f"{SMALL},one=0.1"])
def test_a_picture_depends_on_its_name_only(uri):
    data = sources.read(uri)
    rows = np.random.default_rng(0).permutation(len(data))[:37]
    drawn = frames(data, rows, 32, threads=2)
    assert drawn.shape == (37, 32, 32, 3)
    assert drawn.dtype == np.uint8
    assert np.array_equal(drawn, frames(data, rows, 32, threads=1))
    for some in ([0], [5, 3], [36, 1, 7, 7, 20]):  # another company
        assert np.array_equal(frames(data, rows[some], 32), drawn[some])
    part = data.take(rows[:4])
    assert np.array_equal(frames(part, np.arange(4), 32), drawn[:4])
    assert not np.array_equal(frames(data, rows, 32, seed=1), drawn)
    assert not np.array_equal(frames(sources.read(uri + ",seed=1"), rows, 32), drawn)
    assert frames(data, [], 32).shape == (0, 32, 32, 3)


def test_a_class_keeps_its_system_whatever_the_number_of_classes():
    few, many = (fractals._systems(Fractals(classes=count, seed=3))[0] for count in (5, 40))
    assert np.array_equal(few, many[:5])


def test_systems_contract_and_fill_their_square():
    systems, sizes = fractals._systems(Fractals(classes=60, coverage=0.3))
    assert (ifs.stretch(systems)[..., 0] <= ifs.LONGEST).all()
    assert set(sizes.tolist()) <= set(range(2, 9))
    # a plain look, with other points: one system at a time, a grid over its bounding square
    for system, size in zip(systems[:20], sizes[:20], strict=True):
        draws = np.random.default_rng(1).integers(0, 256, (ifs.BURN + 64, 1, 64), np.uint8)
        z = ifs.walk(system[None], np.array([size]), draws)[0].ravel()
        xy = np.stack([z.real, z.imag])
        xy = (xy - xy.min(1, keepdims=True)) / np.ptp(xy, 1).max()
        assert len(np.unique(np.minimum(xy * 32, 31).astype(int), axis=1).T) / 32**2 > 0.2


def test_too_much_coverage_is_said():
    with pytest.raises(BadSetting, match=r"coverage=0\.99: no system of 200 fills so much"):
        frames(sources.read("fractals:classes=2,coverage=0.99"), [0], 32)


@pytest.mark.parametrize("uri", [PLAIN, f"{SMALL},colour=true,turn=0,background=false"])
def test_instances_are_nearer_to_their_own_class(uri):
    """Leave-one-out 5-NN on plain pixels, binomial test against chance."""
    from scipy.stats import binomtest

    data = sources.read(uri)
    grey = frames(data, np.arange(len(data)), 24).mean(3).reshape(len(data), -1)
    grey = (grey - grey.mean(1, keepdims=True)) / grey.std(1, keepdims=True)
    likeness = grey @ grey.T
    np.fill_diagonal(likeness, -np.inf)
    votes = np.eye(12)[data.targets()[np.argsort(-likeness, 1)[:, :5]]].sum(1)
    right = int((votes.argmax(1) == data.targets()).sum())
    assert binomtest(right, len(data)).proportion_ci().low > 1.5 / 12


def test_one_fractal_differs_by_so_much():
    base, _ = fractals._systems(Fractals(classes=8, one=1e-9))
    moved, sizes = fractals._systems(Fractals(classes=8, one=0.1))
    assert np.ptp(base.real, 0).max() < 1e-8
    gap = np.abs(ifs.real(moved) - ifs.real(base))[:, : sizes[0]]
    free = (ifs.stretch(moved)[..., 0] < ifs.LONGEST - 1e-9)[:, : sizes[0]]
    assert gap[free].max() <= 0.05 + 1e-8
    assert gap[free].max() > 0.03
    assert len({system.tobytes() for system in moved}) == 8


def test_grey_is_grey_and_colour_is_not():
    data = sources.read(PLAIN)
    drawn = frames(data, [0, 30], 32).astype(int)
    assert np.ptp(drawn, axis=3).max() == 0
    assert drawn.min() == 0
    assert drawn.max() > 200
    coloured = frames(sources.read(SMALL + ",colour=true,several=3"), [0, 30], 32).astype(int)
    assert np.ptp(coloured, axis=3).max() > 30


def test_frames_of_files_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"x")
    with pytest.raises(BadData, match="is not drawn"):
        frames(sources.read(tmp_path), [0], 32)


@pytest.mark.parametrize("verb", [topwork.read, topwork.inspect, topwork.fit])
def test_they_are_for_pretraining_only(verb):
    with pytest.raises(BadData, match=r"drawn while they are learnt from.*topwork pretrain fractals:"):
        verb("fractals:classes=3")
