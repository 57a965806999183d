"""Negative transfer is noticed where it is there, by the paired test, and nowhere else."""

import numpy as np
import pyarrow as pa

from topwork.ground import Ground
from topwork.planning import Plan
from topwork.rung import Climb, Rung, compare
from topwork.transfer import alarms
from topwork.types import Dataset, Head, Probe

N, C = 300, 3
Y = np.arange(N) % C


def ground():
    table = pa.table({"item": [str(i) for i in range(N)], "target": pa.array(Y, pa.int32())})
    dataset = Dataset(table, ".", tuple("abc"))
    folds = (np.arange(N) // C % 5).astype(np.int32)
    return Ground(dataset, np.arange(N), np.zeros(0, np.int64), folds, "cross-validation", "")


def rung(name, right, backbone="bundled", tuned=False, methods=("logistic",)):
    """A step that gets the first `right` items right, and a seventh of them in another order."""
    z = np.zeros((N, C), np.float32)
    order = np.random.default_rng(0).permutation(N)
    good = np.zeros(N, bool)
    good[order[:right]] = True
    z[np.arange(N), np.where(good, Y, (Y + 1) % C)] = 4.0
    probe = Probe(Head("linear", {}, method=name), z, 0.0, "")
    return Rung(Plan(name, backbone, methods, tuned=tuned), None, None, probe, (), np.arange(N), np.zeros(0, int), 1.0)


def heard(*rungs):
    return alarms(ground(), Climb(rungs, (), rungs[0]))


MAJORITY = rung("majority", 100, "bundled:pixels", methods=("majority",))
PIXELS = rung("pixels", 200, "bundled:pixels")
SCRATCH = rung("scratch(epochs=9) + mixup", 250, tuned=True)


def test_a_backbone_that_beats_pixels_and_scratch_is_no_news():
    assert heard(MAJORITY, PIXELS, rung("probe", 270)) == ()
    assert heard(rung("probe", 248), SCRATCH) == ()  # within chance
    assert heard(MAJORITY, PIXELS) == ()


def test_a_probe_that_is_worse_than_pixels_raises_an_alarm():
    (finding,) = heard(MAJORITY, PIXELS, rung("probe", 150), rung("majority", 0, methods=("majority",)))[:1]
    assert (finding.kind, finding.severity) == ("negative_transfer", "warning")
    assert finding.message.startswith("negative transfer: probe is 16.7 points [")
    assert finding.message.endswith("worse than raw pixels.")
    assert "topwork rank" in finding.fix


def test_what_is_not_worse_is_named():
    (finding,) = heard(rung("probe", 150), rung("lp_ft(epochs=3)", 252, tuned=True), SCRATCH)
    assert "probe is 33.3 points" in finding.message
    assert "the same architecture from random weights (scratch)" in finding.message
    assert "lp_ft" not in finding.message
    assert finding.fix.startswith("lp_ft is not: what is frozen does not fit these items.")


def test_both_ways_without_pretraining_are_asked():
    found = heard(PIXELS, rung("probe", 150), SCRATCH)
    assert [f.message.rpartition(" worse than ")[2] for f in found] == [
        "raw pixels.",
        "the same architecture from random weights (scratch).",
    ]


def test_the_numbers_behind_a_verdict():
    pays, words, gain = compare(ground(), rung("probe", 200), rung("lp_ft", 240))
    assert pays
    assert words.startswith("+13.3 points")
    assert gain["over"] == "probe"
    assert gain["difference"] == 40 / 300
    assert 0 < gain["low"] < gain["difference"] < gain["high"]
    assert gain["p_value"] < 0.001
    pays, words, gain = compare(ground(), rung("probe", 240), rung("lp_ft", 200))
    assert not pays
    assert gain["difference"] == -40 / 300
    assert not gain["surer"]
