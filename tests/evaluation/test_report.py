"""The report: one set of numbers as page, JSON and lines; nothing in the user's data can break it or run in it."""

import base64
import hashlib
import html.parser
import io
import json
import math
import random
import re

import numpy as np
import pytest
from rich.console import Console

from topwork.evaluation import charts, wording
from topwork.evaluation.advice import advice
from topwork.evaluation.axis import Axis, log_axis, share_axis
from topwork.evaluation.report import render, terminal, to_json
from topwork.types import Choice, Metric

FLOWERS = ("daisy", "dandelion", "rose", "sunflower", "tulip")
VOID = {"col", "meta", "link", "img", "line", "rect", "circle", "path", "br"}


def wilson(right, n, z=1.959964):
    """Wilson's score interval (1927) as a metric record."""
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    p, middle = right / n, (right / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {"value": p, "low": max(middle - half, 0.0), "high": min(middle + half, 1.0), "n": n}


def confusions(labels, per_class, skill, dice):
    """Counts as a model of that skill makes them: mistakes fall mostly on neighbours."""
    counts = [[0] * len(labels) for _ in labels]
    for truth in range(len(labels)):
        for _ in range(max(1, round(per_class * dice.uniform(0.7, 1.2)))):
            right = dice.random() < skill - 0.05 * (truth % 3)
            step = 0 if right else dice.choice((1, 1, 1, 2, len(labels) // 2))
            counts[truth][(truth + step) % len(labels)] += 1
    return counts


def bins(dice, n, sharpness):
    """A reliability diagram of fifteen bins of equal mass; sharpness > 1: overconfident."""
    rows, size = [], max(n // 15, 1)
    for confidence in sorted(1 - 0.62 * dice.random() ** 2.2 for _ in range(15)):
        true = 0.5 + (confidence - 0.5) / sharpness + dice.gauss(0, 0.03)
        share = wilson(round(size * min(max(true, 0), 1)), size)
        rows.append(
            {"confidence": confidence, "accuracy": share["value"], **{k: share[k] for k in ("low", "high", "n")}}
        )
    return rows


def shifted(share, by):
    """The same interval somewhat higher or lower."""
    return share | {name: min(max(share[name] + by, 0), 1) for name in ("value", "low", "high")}


def step(name, spec, score, seconds, kept, verdict):
    """One rung of the ladder."""
    rung = {"name": name, "spec": spec, "seconds": seconds, "kept": kept, "verdict": verdict}
    return rung | {"metrics": {"accuracy": score}}


def tuning():
    """What a tuned step leaves: losses of six trainings, the folds' results, what moved."""
    names = ["fold 1 of 2", "fold 2 of 2", "on everything"]
    return {
        "spec": "last_stages(1, epochs=4) + l2_sp + mixup",
        "choices": {"views": "crop"},
        "proofs": {"frozen": 412, "frozen_moved": 0, "free": 58, "free_moved": 58, "weights": "ab"},
        "curves": {
            name: {
                "steps": list(range(5, 5 * length, 5)),
                "seconds": [0.1] * (length - 1),
                "terms": {"task": [1 / i for i in range(1, length)], "l2_sp": [None] + [0.01] * (length - 2)},
            }
            for name, length in zip(names, (40, 40, 50), strict=True)
        },
        "folds": [{"name": name, "items": 149, "accuracy": 0.9, "log_loss": 0.31} for name in names[:2]],
        "stages": [
            {"name": "conv_stem – blocks.0", "tensors": 412, "moved": 0, "change": 0.0},
            {"name": "blocks.5", "tensors": 58, "moved": 58, "change": 0.12},
        ],
    }


def gallery(shots, labels, dice, low, high):
    """Pictures to look at: all wrong when the model is sure, every third right when it is not."""
    return [
        {
            "item": item,
            "row": row,
            "label": label,
            "probability": dice.uniform(low, high),
            "predicted": labels[(labels.index(label) + (low > 0.5 or row % 3 > 0)) % len(labels)],
        }
        for row, (item, label) in enumerate(shots)
    ]


def sample(labels=FLOWERS, per_class=60, skill=0.93, seed=0, shots=(), **changes):
    """Numbers as `fit` makes them for a flowers-like set, of any size."""
    dice = random.Random(seed)
    counts = confusions(labels, per_class, skill, dice)
    n, right = sum(map(sum, counts)), sum(row[i] for i, row in enumerate(counts))
    accuracy, columns = wilson(right, n), [sum(column) for column in zip(*counts, strict=True)]
    pairs = [
        {"truth": labels[i], "predicted": labels[j], "count": counts[i][j]}
        for i in range(len(labels))
        for j in range(len(labels))
        if i != j and counts[i][j]
    ]
    shots = shots or [
        (f"{label}/{dice.randrange(10**9)}_{dice.randrange(16**6):06x}.jpg", label) for label in labels * 3
    ]
    numbers = {
        "topwork": "0.1.0",
        "created": "2026-11-21T10:00:00Z",
        "task": "image-classification",
        "command": "topwork fit photos/flowers --budget 5m --seed 0",
        "seed": 0,
        "multilabel": False,
        "data": {
            "name": "flowers5_small",
            "items": 5 * n,
            "classes": len(labels),
            "labels": list(labels),
            "counts": {
                "train": {label: sum(row) * 3 + dice.randrange(40) for label, row in zip(labels, counts, strict=True)},
                "test": {label: sum(row) for label, row in zip(labels, counts, strict=True)},
            },
            "hash": "1f0c9d5f7b0a4d77",
            "source": "/home/ada/photos/flowers",
            "notes": ["Labels are the names of the subfolders.", "No test folder: a fifth was set aside, stratified."],
        },
        "findings": [
            {
                "kind": "leakage",
                "severity": "error",
                "count": 7,
                "items": ["rose/a1.jpg", "rose/b2.jpg", "tulip/c3.jpg"],
                "message": "7 test images are also in the training part.",
                "fix": "The 7 training copies were left out of training.",
            },
            {
                "kind": "near_duplicates",
                "severity": "warning",
                "count": 23,
                "items": ["daisy/11.jpg", "daisy/11 (2).jpg"],
                "message": "23 images look almost the same as another one.",
                "fix": "They are kept on one side of the split.",
            },
            {
                "kind": "imbalance",
                "severity": "note",
                "count": 0,
                "items": [],
                "message": "The largest class has 1.6 times as many images as the smallest.",
                "fix": "",
            },
        ],
        "skipped": [
            {"item": f"rose/broken_{i}.jpg", "reason": "the file ends in the middle of the picture"} for i in range(3)
        ],
        "choices": [
            {"name": "backbone", "value": "local:weights/mobilenetv2_100", "reason": "named on the command line"},
            {"name": "engine", "value": "onnxruntime", "reason": "61 images a second on the first batches, torch 48"},
            {
                "name": "batch size",
                "value": 16,
                "reason": "8, 16 and 32 were tried; more is not faster and needs more memory",
            },
            {
                "name": "probe",
                "value": "logistic(l2=0.1)",
                "reason": "lowest cross-validated log loss (0.241) of 4 methods",
            },
        ],
        "backbone": {
            "spec": "local:weights/mobilenetv2_100",
            "name": "mobilenetv2_100",
            "architecture": "mobilenetv2_100",
            "parameters": 2223872,
            "multiply_adds": 300774272,
            "licence": "Apache-2.0",
            "trained_on": "ImageNet-1k",
            "weights": hashlib.sha256(b"weights").hexdigest(),
            "preprocess": {
                "resize_px": 256,
                "crop_px": 224,
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "interpolation": "bicubic",
                "fit": "crop",
            },
        },
        "extraction": {
            "seconds": 22.4,
            "images": 5 * n,
            "forward_passes": 5 * n - 23,
            "cached": 0,
            "engine": "onnxruntime 1.31 CPU, 2 threads",
            "images_per_second": 61.3,
        },
        "steps": [
            step("majority", "majority", wilson(round(n * 1.2 / len(labels)), n), 0.002, True, "the number to beat"),
            step(
                "pixels",
                "bundled:pixels + logistic(l2=10)",
                shifted(accuracy, -0.42),
                1.9,
                True,
                "+22.1 points [16.4, 27.7] over majority, p < 0.001: kept",
            ),
            step(
                "bundled",
                "bundled + logistic(l2=0.1)",
                shifted(accuracy, -0.14),
                6.2,
                True,
                "+28.0 points [23.1, 32.8] over pixels, p < 0.001: kept",
            ),
            step(
                "probe",
                "local:weights/mobilenetv2_100 + logistic(l2=0.1)",
                accuracy,
                24.1,
                True,
                "+14.0 points [10.2, 17.9] over bundled, p < 0.001: kept",
            ),
            step(
                "last_stages",
                "local:weights/mobilenetv2_100 + last_stages(1)",
                shifted(accuracy, 0.008),
                140.0,
                False,
                "+0.8 points [-0.9, 2.5] over probe, p = 0.41: not kept, six times the time for nothing shown",
            ),
        ],
        "evaluated_on": {
            "kind": "test",
            "n": n,
            "text": "Set aside before anything was learnt; duplicates stay on one side.",
        },
        "metrics": {
            "accuracy": accuracy,
            "balanced_accuracy": shifted(accuracy, -0.004),
            "macro_f1": shifted(accuracy, -0.006),
            "log_loss": {"value": 0.241, "low": 0.187, "high": 0.305, "n": n},
            "top5_accuracy": wilson(n, n),
        },
        "per_class": [
            {
                "label": label,
                "recall": wilson(counts[i][i], sum(counts[i])),
                "precision": wilson(counts[i][i], columns[i]),
                "f1": 2 * counts[i][i] / (sum(counts[i]) + columns[i]),
                "support": sum(counts[i]),
            }
            for i, label in enumerate(labels)
        ],
        "confusion": {"labels": list(labels), "counts": counts, "pairs": sorted(pairs, key=lambda p: -p["count"])[:20]},
        "calibration": {
            "temperature": 1.42,
            "before": {"ece": 0.061, "log_loss": 0.268, "bins": bins(dice, n, 1.35)},
            "after": {"ece": 0.018, "log_loss": 0.241, "bins": bins(dice, n, 1.02)},
        },
        "label_curve": {
            "points": [
                {"labels": m, "accuracy": 0.97 - 0.9 * m**-0.42, "low": 0.95 - m**-0.42, "high": 0.985 - 0.8 * m**-0.42}
                for m in (25, 50, 100, 200, 400, 800)
            ],
            "fit": {"a": 0.03, "b": 0.9, "c": 0.42},
            "twice": {"labels": 1600, "accuracy": 0.9294, "low": 0.914, "high": 0.944},
            "text": "Twice the labels would bring about 1.3 points.",
        },
        "gallery": {
            "most_wrong": gallery(shots[:12], labels, dice, 0.7, 0.99),
            "least_sure": gallery(shots[:6], labels, dice, 0.28, 0.5),
        },
        "proof": {"items": n, "agreement": 1.0, "max_difference": 1.2e-7, "seconds": 1.2, "reused": False, "text": ""},
        "seconds": {
            "read": 0.1,
            "inspect": 1.9,
            "extract": 22.4,
            "probe": 1.1,
            "evaluate": 0.9,
            "export": 2.0,
            "total": 29.3,
        },
        "hashes": {"data": "1f0c9d5f7b0a4d77", "backbone": "90ab12cd34ef5678", "code": "5d41402abc4b2a76"},
    }
    return numbers | changes


class Page(html.parser.HTMLParser):
    """A strict reader: every element is closed in order; scripts, resources and ids are remembered."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.scripts, self.styles, self.loads, self.ids, self.attributes, self.texts = (
            [],
            [],
            [],
            [],
            [],
            [],
            [],
        )
        self.feed(text)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.loads += [value for name, value in attrs if name in ("src", "srcset", "data", "action")]
        self.loads += [value for name, value in attrs if name == "href" and not value.startswith("#")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        opened = self.stack.pop()
        assert opened == tag, f"<{opened}> closed by </{tag}> at {self.getpos()}"

    def handle_data(self, data):
        place = {"script": self.scripts, "style": self.styles}.get(self.stack[-1] if self.stack else "", self.texts)
        place.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).replace("\u202f", " ").replace("\xa0", " ").split())


def lines_of(renderable, width=80):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(renderable)
    return console.file.getvalue().splitlines()


def test_page_is_whole_and_loads_nothing():
    page = Page(render(sample(), {"x": b"\xff\xd8\xff"}))
    assert all(load.startswith("data:") for load in page.loads)
    assert len(page.ids) == len(set(page.ids)) == 14
    links = [value[1:] for tag, name, value in page.attributes if tag == "a" and name == "href"]
    assert links == page.ids
    assert not [a for a in page.attributes if a[1] == "style" or a[1].startswith("on")]  # the policy would refuse them


def test_policy_allows_its_own_style_and_script_only():
    page = Page(render(sample()))
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind, text in (("style", page.styles), ("script", page.scripts)):
        digest = base64.b64encode(hashlib.sha256("".join(text).encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_three_forms_tell_the_same_numbers():
    numbers = sample()
    page, lines = Page(render(numbers)), " ".join(lines_of(terminal(numbers, "models/flowers/report.html"), 200))
    accuracy = numbers["metrics"]["accuracy"]
    for form in (page.text, lines):
        assert f"{accuracy['value']:.1%}".replace("%", " %") in form
        assert f"{accuracy['low'] * 100:.1f} to {accuracy['high'] * 100:.1f} %" in form
        assert "7 test images are also in the training part." in form
        assert "all 298 images" in form
    assert json.loads(to_json(numbers)) == json.loads(json.dumps(numbers))
    assert "models/flowers/report.html" in lines


def test_every_section_says_what_it_should():
    page = Page(render(sample()))
    for words in (
        "not kept, six times the time",
        "in use",
        "logistic(l2=0.1)",
        "rose taken for",
        "temperature 1.42",
        "expected with 1,600 labels: 92.9 % (91.4 to 94.4 %)",
        "lowest cross-validated log loss",
        "Same probabilities",
        "3 items could not be used",
        "the file ends in the middle",
        "topwork fit photos/flowers",
        "5d41402abc4b2a76",
        "2.22 million",
        "commonest class",
        "The data has 1 serious finding",
        "22.4 s",
    ):
        assert words in page.text, words


NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }}",
    "郁金香",
    "🌷" * 3,
    "a very long label " * 40,
    "[red]markup[/red]",
    "\u202egnp.exe",
    "line\nbreak\ttab",
    "nul\x00 esc\x1b[31m",
    "bytes \udcff",
    "'; --",
    "&amp;",
)


def test_what_learnt_is_told_with_its_losses_and_proofs():
    numbers = sample(tuning=tuning())
    text = render(numbers)
    page = Page(text)
    for words in (
        "412 frozen tensors are bit for bit what they were; 58 of 58 others have moved.",
        "2 folds, each without the images",
        "blocks.5",
        "stood still",
        "12.0 %",
        "0.310",
    ):
        assert words in page.text, words
    assert "tuning" in page.ids
    lines = [value for tag, name, value in page.attributes if tag == "path" and name == "class"]
    assert lines.count("learnt") == 2  # task and l2_sp
    assert lines.count("fold") == 4
    assert "412 frozen tensors are bit for bit" in " ".join(lines_of(terminal(numbers), 200))
    for key in numbers["tuning"]:
        for gone in ({k: v for k, v in numbers["tuning"].items() if k != key}, numbers["tuning"] | {key: None}):
            Page(render(numbers | {"tuning": gone}))
            lines_of(terminal(numbers | {"tuning": gone}))
    numbers["tuning"]["spec"] = numbers["tuning"]["stages"][0]["name"] = NASTY[0]
    numbers["tuning"]["curves"] = {NASTY[1]: numbers["tuning"]["curves"]["on everything"]}
    numbers["tuning"]["folds"][0]["name"] = NASTY[0]
    assert "<script>alert" not in render(numbers)


def test_curves_go_through_their_points():
    charts_ = charts.losses(tuning()["curves"])
    assert [c["term"] for c in charts_] == ["task", "l2_sp"]
    task = charts_[0]
    assert [line["main"] for line in task["lines"]] == [False, False, True]
    places = [tuple(map(float, p.split())) for p in task["lines"][-1]["path"][1:].split("L")]
    x, y = task["x"], task["y"]
    for i, (across, down) in enumerate(places, 1):
        assert x.end * across / 100 == pytest.approx(5 * i, abs=0.1)
        assert y.start * (1 - down / 100) == pytest.approx(1 / i, abs=1e-3)
    assert charts.losses({}) == []
    assert charts.losses({"a": {"steps": [], "terms": {}}}) == []
    (one,) = charts.losses({"a": {"steps": [3], "terms": {"task": [2.0]}}})
    assert one["lines"][0]["path"] == "M0 0.0L100.0 0.0"


def test_long_specs_get_short_names_and_what_was_left_out_is_listed_below():
    spec = "last_stages(1, epochs=4) + l2_sp + mixup"
    numbers = sample()
    gain = {"over": "probe", "difference": 0.061, "low": 0.03, "high": 0.092, "p_value": 0.0001, "surer": False}
    numbers["steps"][-1] |= {"name": spec, "spec": f"bundled + {spec}", "gain": gain, "kept": True}
    why = "left out: one epoch takes about 99 s and the budget has 20 s left (--budget)"
    numbers["steps"].append({"name": "lp_ft", "spec": "bundled", "metrics": {}, "seconds": 1, "verdict": why})
    numbers["advice"] = advice(numbers)
    page = Page(render(numbers))
    assert "last_stages gained 6.1 points [3.0, 9.2] over probe for 2 min 20 s (p < 0.001): worth it." in page.text
    assert "Not tried lp_ft one epoch takes about 99 s" in page.text
    assert "Next: give it more time (--budget), lp_ft had none" in page.text
    titles = [value for _, name, value in page.attributes if name == "title"]
    assert spec in titles
    lines = " ".join(" ".join(lines_of(terminal(numbers), 200)).split())
    assert "gained 6.1 points [3.0, 9.2] over probe: worth it" in lines
    assert "Next: give it more time" in lines


@pytest.mark.parametrize("size", [0, 30])
def test_labels_never_run_nor_break_anything(size):
    labels = NASTY + tuple(f"{NASTY[i % len(NASTY)]} {i}" for i in range(size))
    numbers = sample(labels=labels, per_class=9, skill=0.5)
    numbers["data"]["name"] = numbers["command"] = numbers["headline"] = "</title></script><script>alert(2)</script>"
    numbers["created"] = numbers["label_curve"]["text"] = numbers["evaluated_on"]["text"] = "".join(NASTY)
    numbers["skipped"] = [{"item": label, "reason": label} for label in labels]
    numbers["findings"][0] |= {"items": list(labels), "message": labels[0], "fix": labels[1], "severity": labels[0]}
    numbers["choices"][0] |= {"value": labels[1], "reason": labels[0]}
    numbers["steps"][0] |= {"name": labels[1], "verdict": labels[0]}
    text = render(numbers, {labels[0]: b"\xff\xd8\xff"})
    text.encode()  # a lone surrogate would fail here, after an hour of training
    page = Page(text)
    assert len(page.scripts) == 1
    assert "alert" not in page.scripts[0]
    assert all(load.startswith("data:") for load in page.loads)
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert not re.search("[\x00\x1b\u202e]", text)
    assert "{{ 7*7 }}" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert "郁金香" in page.text
    lines = lines_of(terminal(numbers, labels[5]))
    assert not re.search("[\x00\x1b\u202e\ud800-\udfff]", "".join(lines))
    json.loads(to_json(numbers))


def test_two_hundred_classes_stay_usable_and_small():
    labels = tuple(f"{'a long label of many words ' * 5}{i}" for i in range(200))
    numbers = sample(labels=labels, per_class=12, skill=0.8)
    text = render(numbers)
    assert len(text) < 600_000
    assert "matrix" not in {value for _, name, value in Page(text).attributes if name == "class"}
    drawn = sum(len(re.findall("M", d)) for d in re.findall(r'class="(?:right|wrong)\d" d="([^"]*)"', text))
    assert drawn == np.count_nonzero(numbers["confusion"]["counts"])


def test_ten_classes_without_thumbnails_are_small():
    assert len(render(sample(labels=tuple("abcdefghij"))).encode()) < 100_000


def test_any_missing_part_is_left_out():
    whole = sample()
    assert "No score yet" in render({})
    for key in whole:
        for gone in (
            {k: v for k, v in whole.items() if k != key},
            whole | {key: None},
            whole | {key: type(whole[key])()},
        ):
            Page(render(gone))
            lines_of(terminal(gone))
        if isinstance(whole[key], dict):
            for inner in whole[key]:
                less = whole | {key: {k: v for k, v in whole[key].items() if k != inner}}
                assert render(less)
                lines_of(terminal(less))
    for key in ("steps", "per_class", "findings", "choices", "skipped"):
        for inner in whole[key][0]:
            less = whole | {key: [{k: v for k, v in one.items() if k != inner} for one in whole[key]]}
            assert render(less)
            lines_of(terminal(less))


def test_multilabel_and_cross_validated_runs():
    score = {"value": 0.71, "low": 0.66, "high": 0.75, "n": 400}
    numbers = sample(
        multilabel=True,
        metrics={"map": score, "accuracy": score | {"value": 0.31}},
        evaluated_on={"kind": "cross-validation", "n": 400, "text": ""},
    )
    del numbers["confusion"]
    for entry in numbers["gallery"]["most_wrong"]:
        entry["label"] = ["daisy", "rose"]
    page = Page(render(numbers))
    assert "71.0 % mean average precision on unseen images" in page.text
    assert "Mean average precision is 71.0 %" in page.text
    assert "cross-validation" in page.text
    assert "Exact match" in page.text
    assert "daisy, rose" in page.text
    assert "confusion" not in page.ids


def test_a_result_no_better_than_guessing_says_so():
    page = Page(render(sample(skill=0.3, per_class=12)))
    assert "The interval reaches down to what always giving the commonest answer would score." in page.text
    broken = sample()
    broken["proof"]["agreement"] = 0.9966
    page = Page(render(broken))
    assert "99.7 % of 298 images" in page.text
    assert "did not agree" in page.text
    broken["proof"]["ties"] = 1
    broken["proof"]["agreement"] = 297 / 298
    page = Page(render(broken))
    assert "the rest are ties" in page.text
    assert "did not agree" not in page.text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_never_overflows(width):
    from rich.cells import cell_len

    numbers = sample(labels=NASTY, per_class=9)
    numbers["steps"][1]["name"] = "a_step_with_a_name_without_any_space_that_goes_on"
    numbers["findings"][0]["message"] = "x" * 300 + "郁金香" * 50
    lines = lines_of(terminal(numbers, "/a/very/long/path" * 12), width)
    assert max(map(cell_len, lines)) <= width
    assert len(lines) > 15


def test_json_is_stable_and_holds_no_nan():
    numbers = sample()
    turned = dict(reversed(numbers.items())) | {"seconds": dict(reversed(numbers["seconds"].items()))}
    assert to_json(numbers) == to_json(turned)
    odd = to_json(
        {
            "a": float("nan"),
            "b": np.float32("inf"),
            "c": np.arange(3),
            "d": (1, np.int64(2)),
            "e": {"y", "x"},
            "f": np.bool_(True),
            "g": "\udcff",
            "h": np.float64("nan") * np.ones(2),
        }
    )
    assert json.loads(odd) == {
        "a": None,
        "b": None,
        "c": [0, 1, 2],
        "d": [1, 2],
        "e": ["x", "y"],
        "f": True,
        "g": "\udcff",
        "h": [None, None],
    }
    assert render(json.loads(to_json(numbers))) == render(numbers)
    records = to_json({"m": Metric(0.5, 0.4, 0.6, 9), "c": (Choice("engine", 1, "why"),)})
    assert json.loads(records) == {
        "m": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9},
        "c": [{"name": "engine", "value": 1, "reason": "why"}],
    }
    assert max(map(len, to_json(numbers).decode().splitlines())) < 200


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.914, "91.4 %"), (1.0, "100.0 %"), (0.99996, "99.9 %"), (0.0, "0.0 %"), (0.0001, "0.1 %"), (None, "–")],
)
def test_percent_never_rounds_to_all_or_nothing(value, text):
    assert wording.percent(value).replace("\u202f", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0042, "4 ms"),
        (0.0999, "0.1 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 0 s"),
        (75.2, "1 min 15 s"),
        (3725, "1 h 2 min"),
    ],
)
def test_durations_are_words(seconds, text):
    assert wording.duration(seconds).replace("\u202f", " ") == text


@pytest.mark.parametrize(("value", "text"), [(1.2e-7, "0.00000012"), (0, "0"), (0.5, "0.50"), (3e-15, "3e-15")])
def test_small_differences_are_readable(value, text):
    assert wording.tiny(value) == text


def test_axes_hold_their_values_and_ticks_are_round():
    dice = random.Random(1)
    for _ in range(300):
        values = sorted(dice.random() ** dice.choice((1, 4, 0.2)) for _ in range(dice.randint(1, 6)))
        axis = share_axis(values)
        assert 0 <= axis.end < axis.start <= 1
        assert axis.end <= values[0] + 1e-9
        assert values[-1] <= axis.start + 1e-9
        assert 2 <= len(axis.ticks()) <= 7
        seconds = [10 ** dice.uniform(-3, 5) for _ in values]
        ticks = log_axis(seconds).ticks()
        assert ticks == sorted(ticks)
        assert all(float(f"{tick:.0e}") == pytest.approx(tick) for tick in ticks)
    assert Axis(0, 10).at(2.5) == 25
    assert Axis(1, 0).at(0.75) == 25
    assert Axis(1, 100, log=True).at(10) == pytest.approx(50)
    assert Axis(0, 1).at(7) == 100


def test_the_fitted_curve_goes_through_its_own_law():
    curve = sample()["label_curve"]
    chart = charts.label_curve(curve)
    places = [tuple(map(float, pair.split())) for pair in chart["path"][1:].split("L")]
    x, y = chart["x"], chart["y"]
    for across, down in places:
        labels = x.start * (x.end / x.start) ** (across / 100)
        accuracy = y.start + (y.end - y.start) * down / 100
        assert accuracy == pytest.approx(1 - 0.03 - 0.9 * labels**-0.42, abs=1e-3)


def test_names_in_the_ladder_lie_on_nothing_else():
    chart = charts.ladder(sample()["steps"], "accuracy")
    spots = {point["name"]: point["spot"] for point in chart["points"]}
    assert spots == {"majority": "right", "pixels": "left", "bundled": "left", "probe": "left", "last_stages": "above"}


def test_heat_is_the_share_of_the_row():
    assert charts.heat([[8, 0], [1, 7]]) == [[8, 0], [1, 7]]
    assert charts.heat([[0, 0], [1, 999]]) == [[0, 0], [1, 8]]


def luminance(colour):
    """WCAG 2.2 relative luminance of '#rrggbb' or '#rgb'."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * d for d in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def mix(over, under, alpha):
    """The colour seen when `over` ('r g b') lies on `under` ('#rrggbb')."""
    base = under.lstrip("#") if len(under) == 7 else "".join(2 * d for d in under.lstrip("#"))
    parts = zip(map(int, over.split()), (int(base[i : i + 2], 16) for i in (0, 2, 4)), strict=True)
    return "#" + "".join(f"{round(a * alpha + b * (1 - alpha)):02x}" for a, b in parts)


def test_contrast_is_enough_in_light_and_dark():
    light, dark = re.findall(r":root \{([^}]*--heat[^}]*)\}", "".join(Page(render({})).styles))
    for block in (light, dark):
        colour = dict(re.findall(r"--([\w-]+): ([^;]+);", block))
        pairs = [
            (ink, place, 4.5) for ink in ("ink", "soft", "good", "bad", "warn", "note") for place in ("page", "card")
        ]
        for ink, place, least in pairs:
            assert contrast(colour[ink], colour[place]) >= least, (ink, place)
        for name, alpha in (("good", 0.16), ("bad", 0.16), ("warn", 0.2), ("note", 0.16)):
            assert contrast(colour[name], mix(colour[f"{name}-rgb"], colour["card"], alpha)) >= 4.5, name
        for name in ("good", "bad"):  # the darkest cell of the confusion matrix
            assert contrast(colour["ink"], mix(colour[f"{name}-rgb"], colour["card"], float(colour["heat"]))) >= 4.5, (
                name
            )
        assert contrast(colour["soft"], colour["track"]) >= 4.5


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
