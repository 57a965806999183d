"""Tuned steps on numbers: they learn, answers are in the unit of the target, honest folds, the same bits again."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

import topwork as tw  # noqa: E402
from topwork import finetune, search  # noqa: E402
from topwork.adaptation.graft import check_items, techniques  # noqa: E402
from topwork.adaptation.probe import choose  # noqa: E402
from topwork.backbones import find  # noqa: E402
from topwork.backbones.tuned import checksum  # noqa: E402
from topwork.errors import BadSetting  # noqa: E402
from topwork.finetune import pace  # noqa: E402
from topwork.finetune.start import Unit, targets_of  # noqa: E402
from topwork.ground import divide  # noqa: E402
from topwork.store import runs  # noqa: E402
from topwork.terms import Terms  # noqa: E402
from topwork.types import Watch  # noqa: E402

from . import encoders  # noqa: E402
from .test_finetune_texts import encoder, frozen  # noqa: E402, F401
from .tuning import bench, on_everything  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = "full(epochs=14, rate=3e-3, batch=16, head='new') + huber + view('plain')"
MEAN, UNIT = 40_000.0, 2_000.0


def draw_leaning(folder, items=80, seed=0):
    """Stripes whose lean is the number, in a unit of its own, over noise in any colours."""
    draw = np.random.default_rng(seed)
    u, v = np.meshgrid(np.arange(32), np.arange(32))
    (folder / "pics").mkdir(parents=True)
    lines = ["path,lean"]
    for i in range(items):
        lean = draw.uniform(-1, 1)
        wave = np.sin(u * np.cos(lean) + v * np.sin(lean) + draw.uniform(0, 6.28))[..., None]
        picture = 128 + 60 * wave * draw.uniform(-1, 1, 3) + draw.normal(0, 30, (32, 32, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "pics" / f"{i:03}.png")
        lines.append(f"pics/{i:03}.png,{MEAN + UNIT * lean:.2f}")
    (folder / "lean.csv").write_text("\n".join(lines))
    return folder / "lean.csv"


@pytest.fixture(scope="module")
def leaning(tmp_path_factory):
    return draw_leaning(tmp_path_factory.mktemp("data") / "set")


@pytest.mark.slow
def test_a_tuned_step_learns_and_is_shipped_in_the_unit_of_the_target(leaning, backbone, tmp_path):
    model = tw.fit(leaning, backbone=backbone, steps=["probe", SPEC], out=tmp_path / "model")
    report = model.report
    frozen_step, tuned = report["steps"]
    assert tuned["kept"], tuned["verdict"]
    assert tuned["metrics"]["r2"]["value"] > frozen_step["metrics"]["r2"]["value"] + 0.1
    assert all({"r2", "mae"} <= set(fold) for fold in report["tuning"]["folds"])
    assert "same number for 80 of 80 images" in report["proof"]["text"]
    said = [answer.value for answer in model.predict([leaning.parent / "pics" / f"{i:03}.png" for i in range(80)])]
    truth = tw.read(leaning).targets()
    assert np.abs(np.mean(said) - MEAN) < UNIT / 2
    assert np.corrcoef(said, truth)[0, 1] > 0.8
    about = model.manifest["calibration"]
    assert -2 * UNIT < about["low"] < 0 < about["high"] < 2 * UNIT
    page = (model.folder / "report.html").read_text()
    assert "Mean absolute error" in page
    assert "before calibration" not in page


def test_answers_out_of_fold_are_in_the_unit_of_the_target(leaning, backbone):
    """The rung's answers out of fold are in the unit of the target, and the range is read off them."""
    ground, climb = climbed_numbers(leaning, "last_stages(2, epochs=3, batch=16, head='new') + huber", backbone)
    rung = climb.rungs[-1]
    y = ground.dataset.targets()[rung.rows]
    assert rung.probe.held_out.shape == (80, 1)
    assert abs(float(rung.probe.held_out.mean()) - y.mean()) < UNIT
    assert rung.probe.head.activation == "identity"
    assert rung.probe.head.settings["low"] < 0 < rung.probe.head.settings["high"]


def climbed_numbers(data, spec, backbone):
    from topwork import ladder, planning, verbs

    ground = divide(verbs.inspect(verbs.read(data)).dataset)
    plans = planning.plan(["probe", spec], backbone, numeric=True)
    return ground, ladder.climb(ground, plans, None, deadline=float("inf"), watch=Watch())


def test_a_fold_does_not_see_its_own_numbers(leaning, backbone):
    """Among the items of a fold the numbers may change places: its answers are the same, bit for bit."""
    b = bench(leaning, "last_stages(2, epochs=2, batch=16, head='new')", backbone)
    rows, fold = b.ground.train, b.ground.folds[b.ground.train] == 0
    answers = []
    for turn in (0, 5):
        y = b.ground.dataset.targets().copy()
        y[rows[fold]] = np.roll(y[rows[fold]], turn)
        dataset = b.ground.dataset.replace(table=_with_targets(b.ground.dataset.table, y))
        ground = dataclasses.replace(b.ground, dataset=dataset)
        terms = Terms(None, float("inf"), Watch(), extraction={"engine": "torch"})
        own = finetune.Bench.of(ground, b.spec, b.parts, b.start, terms)
        plan = pace.decide(own, float("inf"), 1).plan
        answers.append(own.logits(own.train(plan, rows[~fold], "fold 0").model, rows[fold]))
    np.testing.assert_array_equal(*answers)
    assert len(np.unique(answers[0])) > 1


def _with_targets(table, y):
    import pyarrow as pa

    return table.set_column(table.schema.get_field_index("target"), "target", pa.array(y))


def test_the_unit_is_of_the_training_numbers(leaning):
    ground = divide(tw.read(leaning))
    y = ground.dataset.targets()
    part = dataclasses.replace(ground, train=ground.train[:50])
    assert Unit.of(part) == Unit(y[part.train].mean(), y[part.train].std())
    z = targets_of(part)
    assert z.dtype == np.float32
    assert z[:50].mean() == pytest.approx(0, abs=1e-5)
    assert z[:50].std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(z * Unit.of(part).std + Unit.of(part).mean, y, rtol=1e-6)


def test_killed_and_resumed_gives_the_same_bits(leaning, backbone, tmp_path):
    class Killed(BaseException):
        pass

    def kill(stage, done, _total):
        if done == 7 and "on everything" in stage:
            raise Killed

    spec = "last_stages(1, epochs=3, batch=16) + huber"

    def trained(run, watch=None):
        b = bench(leaning, spec, backbone, run)
        b = dataclasses.replace(b, watch=watch) if watch else b
        return b.train(pace.decide(b, float("inf"), 1).plan, b.ground.train, "on everything")

    wanted = checksum(trained(tmp_path / "calm").trunk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Run, "due", lambda _: True)
        with pytest.raises(Killed):
            trained(tmp_path / "killed", Watch(progress=kill))
    assert list((tmp_path / "killed").rglob("state-*.safetensors"))
    again = trained(tmp_path / "killed")
    assert checksum(again.trunk) == wanted


def test_nothing_trained_says_what_ridge_says(leaning, backbone):
    """At a rate of next to nothing the shipped head is the ridge that it began with, in the target's own unit."""
    b = bench(leaning, "last_stages(1, epochs=1, batch=16, rate=1e-12)", backbone)
    _, head, _ = on_everything(b)
    x = b.start.x(b.ground.train)
    said = x @ head.arrays["weight"] + head.arrays["bias"]
    from topwork.nn.heads import logits

    ridge = choose(x, b.ground.dataset.targets(), b.ground.folds, 1, ("ridge",))[0]
    np.testing.assert_allclose(said, logits(ridge.head, x), atol=0.05 * UNIT)


def of_texts(per_class=60):
    """How many words of the sea stand in a text is the number."""
    data = encoders.dataset(per_class)
    sea = set(encoders.CLASSES["sea"].split())
    y = np.array([100.0 + 10 * sum(word in sea for word in text.split()) for text in data.inputs()])
    y += np.random.default_rng(0).normal(size=len(y))
    return data.replace(table=_with_targets(data.table, y), labels=("salt",), numeric=True)


def text_bench(encoder, spec):  # noqa: F811
    ground = divide(of_texts())
    backbone = find(encoder, "text")
    x, y = frozen(backbone, ground.dataset.inputs()), ground.dataset.targets()
    best, _ = choose(x, y, ground.folds, 1, methods=("ridge(l2=1.0)",))
    given = finetune.Start(backbone, lambda rows: x[rows], best)
    return finetune.Bench.of(ground, spec, techniques(spec), given, Terms(None, float("inf"), Watch()))


def test_texts_learn_numbers(encoder):  # noqa: F811
    b = text_bench(encoder, "full(epochs=15, batch=8, rate=3e-3, head='new') + huber")
    rows = b.ground.train
    learnt, asked = rows[b.ground.folds[rows] != 0], rows[b.ground.folds[rows] == 0]
    plan = pace.decide(b, float("inf"), 1).plan
    z = b.logits(b.train(plan, learnt, "fold 0").model, asked)[:, 0]
    y = b.ground.dataset.targets()[asked]
    assert 90 < z.mean() < 130
    assert 1 - ((z - y) ** 2).mean() / y.var() > 0.5


@pytest.mark.parametrize("spec", ["full + mixup", "full + focal", "last_stages(1) + cutmix", "full + cross_entropy"])
def test_techniques_of_classes_are_refused_before_the_work(spec, leaning, backbone, tmp_path):
    with pytest.raises(BadSetting, match=r"is for classes, and these targets are numbers\. Leave it out"):
        tw.fit(leaning, backbone=backbone, steps=["probe", spec], out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_losses_of_numbers_are_refused_for_classes(stripes, backbone, tmp_path):
    with pytest.raises(BadSetting, match="huber is for numbers, and these targets are classes"):
        tw.fit(stripes, backbone=backbone, steps=["probe", "full + huber"], out=tmp_path / "m")
    with pytest.raises(BadSetting, match="setfit is for classes"):
        check_items(techniques("setfit"), "text", numeric=True)


def test_a_search_draws_what_can_learn_numbers(leaning):
    data = tw.read(leaning)
    space = search.space_of(data)
    assert " + huber" in space.besides
    for option in (*space.besides, *space.mixes):
        check_items(techniques(f"full{option}"), "image", numeric=True)
    assert search.space_of(data.replace(numeric=False)) is search.SPACES["image"]
