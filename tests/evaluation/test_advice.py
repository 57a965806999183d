"""Advice follows from the numbers: what a step was worth, what to do next."""

import pytest

from topwork.evaluation import wording
from topwork.evaluation.advice import advice, gained


def step(name, accuracy=None, seconds=10.0, kept=False, gain=None, verdict=""):
    metrics = {} if accuracy is None else {"accuracy": {"value": accuracy, "low": None, "high": None}}
    return {"name": name, "metrics": metrics, "seconds": seconds, "kept": kept, "gain": gain, "verdict": verdict}


def gain(over, by, low, high, p=0.0001, surer=False):
    return {"over": over, "difference": by, "low": low, "high": high, "p_value": p, "surer": surer}


PROBE = step("probe", 0.80, 12, True)
TUNED = "last_stages(1, epochs=4) + l2_sp + mixup(alpha=0.2)"
PAID = step(TUNED, 0.861, 139, True, gain("probe", 0.061, 0.03, 0.092))
VAIN = step("lp_ft", 0.864, 660, False, gain(TUNED, 0.003, -0.006, 0.012, 0.6))
LATE = step("lp_ft", verdict="left out: one epoch takes about 99 s and the budget has 20 s left (--budget)")
BARRED = step("lp_ft", verdict="left out: The step 'lp_ft' needs the 'train' extra. Install it with: pip install x")
MORE = {"label_curve": {"gain": {"value": 0.031, "low": 0.02, "high": 0.04}}}
FLAT = {"label_curve": {"gain": {"value": 0.001, "low": -0.001, "high": 0.003}}}
UNSURE = {"label_curve": {"gain": {"value": 0.02, "low": -0.01, "high": 0.05}}}


def said(*steps, **numbers):
    return {k: plain(v) for k, v in advice({"steps": list(steps), **numbers}).items()}


def plain(value):
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value.replace("\u202f", " ") if value else value


def test_a_step_is_weighed_in_points_and_time():
    assert said(PROBE, PAID, VAIN)["steps"] == [
        None,
        "last_stages gained 6.1 points [3.0, 9.2] over probe for 2 min 19 s (p < 0.001): worth it.",
        "lp_ft gained 0.3 points [-0.6, 1.2] over last_stages for 11 min 0 s (p = 0.600): not worth it.",
    ]


def test_a_loss_turns_its_interval_round():
    worse = step("lp_ft", 0.78, 60, False, gain("probe", -0.02, -0.05, 0.01, 0.2))
    assert gained(worse, [PROBE], ["probe"]) == "lost 2.0 points [-1.0, 5.0] over probe: not worth it"
    surer = step("lp_ft", 0.80, 60, True, gain("probe", 0.0, -0.01, 0.01, 1.0, surer=True))
    assert "is surer of its answers: worth it" in gained(surer, [PROBE], ["probe"])
    assert gained(step("majority"), [], []) is None
    assert gained(step("x", gain={"over": "probe", "difference": None}), [], []) is None


@pytest.mark.parametrize(
    ("steps", "numbers", "next_"),
    [
        ([PROBE, LATE], {}, "Next: give it more time (--budget), lp_ft had none."),
        (
            [PROBE, LATE],
            MORE,
            "Next: give it more time (--budget), lp_ft had none, or label more images: twice as many would bring about "
            "3.1 points [2.0, 4.0].",
        ),
        (
            [PROBE, PAID, VAIN],
            MORE,
            "Next: label more images: twice as many would bring about 3.1 points [2.0, 4.0], while lp_ft did not pay.",
        ),
        (
            [PROBE, VAIN, step("full", verdict=LATE["verdict"])],
            FLAT,
            "Next: keep this model. Lp_ft did not pay and twice the labels would bring next to nothing; another "
            "backbone may (topwork rank).",
        ),
        ([PROBE, VAIN], UNSURE, "Next: keep this model. Lp_ft did not pay; another backbone may (topwork rank)."),
        ([PROBE], UNSURE, None),
        (
            [PROBE, BARRED],
            {},
            "Next: let lp_ft try. The step 'lp_ft' needs the 'train' extra. Install it with: pip install x.",
        ),
        (
            [PROBE, VAIN],
            {"findings": [{"kind": "negative_transfer"}]},
            "Next: try another backbone (topwork rank): this one does not help here.",
        ),
        (
            [PROBE, LATE],
            {"metrics": {"accuracy": {"value": 0.999, "low": 0.996, "high": 1.0}}},
            "Next: use it. There is next to nothing left to gain.",
        ),
        ([], MORE, None),
    ],
)
def test_the_next_step(steps, numbers, next_):
    assert said(*steps, **numbers)["next"] == next_


def test_short_names_are_short_and_each_is_there_once():
    def names(*full):
        return wording.step_names([{"name": name} for name in full])

    assert names("probe", TUNED) == ["probe", "last_stages"]
    assert names("last_stages(1, epochs=4) + l2_sp + mixup(alpha=0.2)", "last_stages(2)") == [
        "last_stages + l2_sp + mixup",
        "last_stages",
    ]
    assert names("last_stages(1)", "last_stages(2)", "lp_ft") == ["last_stages(1)", "last_stages(2)", "lp_ft"]
    assert names("lora(targets=('a', 'b(c)')) + bss", "lora") == ["lora + bss", "lora"]
    assert names("probe", "probe") == ["probe #1", "probe #2"]
    assert names("") == [""]


@pytest.mark.parametrize(
    ("proofs", "words"),
    [
        (
            {"frozen": 412, "free": 58, "free_moved": 58},
            "412 frozen tensors are bit for bit what they were; 58 of 58 others have moved.",
        ),
        (
            {"frozen": 1, "free": 3, "free_moved": 2},
            "1 frozen tensor is bit for bit what it was; 2 of 3 others have moved.",
        ),
        ({"frozen": 0, "free": 9, "free_moved": 9}, "Nothing was frozen below a boundary; 9 of 9 tensors have moved."),
        ({}, ""),
    ],
)
def test_proofs_in_words(proofs, words):
    assert wording.weights_proven(proofs) == words
