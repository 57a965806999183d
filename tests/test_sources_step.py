"""Other labelled data beside the target: before it, at the same time, and what is left out of it."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

import topwork as tw  # noqa: E402
from topwork import finetune, ladder, planning, source_steps, verbs  # noqa: E402
from topwork.adaptation.joint import Joint  # noqa: E402
from topwork.backbones import find  # noqa: E402
from topwork.backbones.tuned import Tuned  # noqa: E402
from topwork.data.overlap import overlap  # noqa: E402
from topwork.errors import BadData, UnknownName  # noqa: E402
from topwork.ground import divide  # noqa: E402
from topwork.terms import Terms  # noqa: E402
from topwork.types import Dataset, Watch  # noqa: E402

from .conftest import draw_stripes  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

S = 32


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """Two directions, few items."""
    return draw_stripes(tmp_path_factory.mktemp("target") / "few", {"left": 0.8, "right": -0.8}, 40, 0)


@pytest.fixture(scope="module")
def helpful(tmp_path_factory):
    """Four other directions, many items."""
    angles = {"flat": 0.0, "steep": 1.57, "gentle": 0.4, "sloping": -0.4}
    return draw_stripes(tmp_path_factory.mktemp("source") / "angles", angles, 50, 1)


@pytest.fixture(scope="module")
def shorter():
    """Trainings that a test can wait for."""
    patch = pytest.MonkeyPatch()
    patch.setattr(source_steps, "SPECS", ("lp_ft(epochs=6, rate=1e-2, batch=16) + view('plain')",))
    yield
    patch.undo()


def test_a_source_that_helps_is_kept_and_later_steps_begin_from_it(target, helpful, backbone, shorter, tmp_path):
    spec = "lp_ft(epochs=1, rate=1e-5, batch=16) + view('plain')"
    split = "kfold(folds=2)"
    model = tw.fit(
        target, sources=[helpful], backbone=backbone, steps=["probe", spec], split=split, out=tmp_path / "model"
    )
    report = model.report
    probe, source, tuned = report["steps"]
    assert source["name"] == "source angles"
    assert source["kept"], source["verdict"]
    assert "over probe" in source["verdict"]
    assert source["gain"]["over"] == "probe"
    assert source["gain"]["difference"] > 0.05
    assert source["metrics"]["accuracy"]["value"] > probe["metrics"]["accuracy"]["value"]
    assert "after angles + " in source["spec"]
    assert report["sources"] == [{"name": "angles", "source": str(helpful), "items": 200, "classes": 4, "left_out": 0}]
    assert report["backbone"]["weights"] != find(backbone).card.weights
    assert "on angles" in report["backbone"]["trained_on"]
    assert report["proof"]["agreement"] == 1
    assert tuned["spec"].startswith(f"{backbone} after angles + lp_ft")  # begins from there, and hardly moves
    assert abs(source["metrics"]["accuracy"]["value"] - tuned["metrics"]["accuracy"]["value"]) < 0.1


@pytest.mark.slow
def test_joint_training_pays_and_ships_the_targets_head(target, helpful, backbone, monkeypatch):
    monkeypatch.setattr(source_steps, "SPECS", ("lp_ft(epochs=14, rate=1e-2, batch=16) + view('plain')",))
    found = verbs.inspect(verbs.read(target)).dataset
    ground = divide(found)
    ground = dataclasses.replace(ground, folds=ground.folds % 2)  # fewer trainings
    sources = source_steps.gather([(str(helpful), verbs.read(helpful))], found, None, Watch())
    plans = source_steps.insert(planning.plan("probe", backbone), sources, "joint", backbone)
    climbed = ladder.climb(ground, plans, None, deadline=float("inf"), watch=Watch())
    joint = climbed.rungs[1]
    assert climbed.steps[1].name == "joint with angles"
    assert climbed.steps[1].kept, climbed.steps[1].verdict
    assert joint.probe.head.arrays["weight"].shape[1] == 2
    assert joint.probe.held_out.shape == (80, 2)
    assert joint.facts["proofs"]["free_moved"] > 30
    assert not any("others" in name for name in joint.backbone.module().state_dict())


def test_chosen_rows_and_shares_of_a_joint_bench(target, helpful, backbone, shorter, monkeypatch):
    seen = []

    class Enough(Exception):
        pass

    def spy(trunk, methods, feed, plan, *_, **__):
        seen.append((methods, feed, plan))
        raise Enough

    found = verbs.inspect(verbs.read(target)).dataset
    (source,) = source_steps.gather([(str(helpful), verbs.read(helpful))], found, None, Watch())
    ground = divide(found)
    monkeypatch.setattr(finetune.bench.loop, "train", spy)
    plans = source_steps.insert(planning.plan("probe", backbone), [source], "joint", backbone)
    with pytest.raises(Enough):
        ladder.climb(ground, plans, None, deadline=float("inf"), watch=Watch())
    ((tune,), feed, plan), N = seen[0], len(ground.dataset)
    own = ground.train[ground.folds[ground.train] != ground.folds[ground.train].min()]
    assert feed.classes == (2, 4)
    assert np.array_equal(feed.chosen, np.concatenate([own, np.arange(N, N + 200)]))
    assert (feed.source[N:] == 1).all()
    assert np.array_equal(feed.targets[N:], source.dataset.targets())
    assert isinstance(tune.parts[-1], Joint)
    share = 80**0.5 / (80**0.5 + 200**0.5)
    assert tune.shares((80, 200))[0] == pytest.approx(share)
    assert plan.steps == round(np.ceil(80 / 16 / share) * 6 * len(own) / 80)  # every item of the target in an epoch


def test_what_the_target_has_is_left_out_of_a_source(target, helpful, backbone, tmp_path):
    mixed = tmp_path / "mixed"
    for label in ("flat", "steep"):
        (mixed / label).mkdir(parents=True)
        for path in sorted((helpful / label).iterdir())[:6]:
            (mixed / label / path.name).write_bytes(path.read_bytes())
    own = sorted((target / "left").iterdir())
    (mixed / "flat" / "copy.png").write_bytes(own[0].read_bytes())
    Image.open(own[1]).save(mixed / "steep" / "again.webp", lossless=True)  # another file, the same picture
    found = verbs.inspect(verbs.read(target)).dataset
    said = []
    (source,) = source_steps.gather([("mixed", verbs.read(mixed))], found, None, Watch(say=said.append))
    assert (source.shared, len(source.dataset)) == (2, 12)
    assert any("2 of its items are in the target, too" in line for line in said)
    assert source.finding().kind == "source_overlap"
    with pytest.raises(BadData, match="fewer than two classes to learn from, 0 items after 80"):
        source_steps.gather([("same", verbs.read(target))], found, None, Watch())


def test_overlap_against_a_plain_comparison_of_bytes(target, helpful):
    one, other = (verbs.inspect(verbs.read(folder)).dataset for folder in (target, helpful))
    assert not overlap(one, other).any()
    half = other.take(np.arange(0, len(other), 2))
    assert np.array_equal(overlap(half, other), np.arange(len(other)) % 2 == 0)


def test_val_and_test_of_a_source_are_left_alone(target, helpful, tmp_path):
    for side, labels in (("train", ("flat", "steep")), ("test", ("flat", "steep"))):
        for label in labels:
            (tmp_path / "s" / side / label).mkdir(parents=True)
            for path in sorted((helpful / label).iterdir())[slice(5) if side == "train" else slice(5, 9)]:
                (tmp_path / "s" / side / label / path.name).write_bytes(path.read_bytes())
    found = verbs.inspect(verbs.read(target)).dataset
    (source,) = source_steps.gather([("s", verbs.read(tmp_path / "s"))], found, None, Watch())
    assert len(source.dataset) == 10


def test_several_sources_are_asked_alone_and_together(backbone):
    def source(name):
        table = pa.table({"item": ["a"], "target": pa.array([0], pa.int32())})
        return source_steps.Source(name, name, Dataset(table, "", ("x", "y")), 0)

    plans = planning.plan(["majority", "logistic(l2=0.1)", "lp_ft"], backbone)
    new = source_steps.insert(plans, [source("a"), source("b")], "both", backbone)
    assert [p.name for p in new] == [
        "majority", "logistic(l2=0.1)", "source a", "source b", "source a & b", "joint with a & b", "lp_ft",
    ]  # fmt: skip
    assert new[2].methods == ("logistic(l2=0.1)",)
    assert [p.tuned for p in new[2:6]] == [False, False, False, True]
    assert source_steps.insert(plans, [], "both", backbone) == plans
    assert source_steps._names([("p/a", "a"), ("q/a", "a"), ("b", "b")]) == ["p/a", "q/a", "b"]


def test_two_sources_together_are_learnt_with_a_head_each(target, helpful, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(source_steps, "SPECS", ("last_stages(1, epochs=1, batch=16) + view('plain')",))
    more = draw_stripes(tmp_path / "more", {"up": 1.2, "down": -1.2}, 10, 5)
    found = verbs.inspect(verbs.read(target)).dataset
    sources = source_steps.gather([(str(p), verbs.read(p)) for p in (more, helpful)], found, None, Watch())
    ground = divide(found)
    rung = ladder.climb(ground, planning.plan("probe", backbone), None, deadline=float("inf"), watch=Watch()).best
    moved, facts = source_steps.Lesson(sources).moved(rung.backbone, Terms(None, float("inf"), Watch()))
    assert isinstance(moved, Tuned)
    assert facts["spec"].endswith("on more & angles")
    assert facts["proofs"]["frozen"] > 10
    assert facts["proofs"]["free_moved"] > 4
    assert moved.card.features == rung.backbone.card.features
    assert "others" not in " ".join(moved.module().state_dict())


def test_bad_settings_stop_before_work(target, tmp_path):
    with pytest.raises(UnknownName, match="intermediate"):
        tw.fit(target, sources=["x"], source_how="intermediat", out=tmp_path / "m")
    with pytest.raises(BadData, match="does not exist"):
        tw.fit(target, sources=[str(tmp_path / "nowhere")], out=tmp_path / "m")


def test_a_tuned_backbone_lends_copies(backbone):
    card = find(backbone).card
    tuned = Tuned.of(card, find(backbone).module(), card.features, "x")
    before = {n: t.clone() for n, t in tuned.trunk.state_dict().items()}
    lent = tuned.module()
    with torch.no_grad():
        for p in lent.parameters():
            p.add_(1)
    assert all(torch.equal(before[n], t) for n, t in tuned.trunk.state_dict().items())
