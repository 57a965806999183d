"""Classes that come later: what is remembered, what is solved, what is kept, and that all of it is proven."""

import dataclasses
import json

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

import topwork as tw
from topwork import extending, verbs
from topwork.artefact import bundle, onnx, statistics, weights
from topwork.artefact.model import load
from topwork.errors import BadData, BadSetting, BadWeights
from topwork.nn import class_statistics
from topwork.nn.columns import columns
from topwork.nn.heads import logits
from topwork.nn.log_loss import losses
from topwork.types import Head

COLOURS = {"amber": (220, 160, 40), "moss": (70, 130, 60), "slate": (90, 100, 120), "rose": (210, 90, 130)}


def pictures(folder, labels, items, seed=0):
    """As the photos of conftest: colours and stripes."""
    draw = np.random.default_rng(seed)
    for label in labels:
        (folder / label).mkdir(parents=True)
        for i in range(items):
            wave = 40 * np.sin(np.arange(64) * draw.uniform(0.1, 0.9))[:, None]
            picture = draw.normal(COLOURS[label], 45, (48, 64, 3)) + wave
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / label / f"{seed}-{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A model of three classes."""
    base = tmp_path_factory.mktemp("extend")
    patch = pytest.MonkeyPatch()
    patch.setenv("TOPWORK_CACHE", str(base / "cache"))
    data = pictures(base / "three", ("amber", "moss", "slate"), 14)
    model = tw.fit(data, backbone="bundled", steps="logistic", out=base / "model")
    patch.undo()
    return model


def test_statistics_are_those_of_a_plain_computation():
    draw = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [30, 20, 10])
    x = (draw.normal(size=(60, 8)) @ draw.normal(size=(8, 8)) + 3 * y[:, None]).astype(np.float32)
    found = class_statistics.collect(x, y, 3, rank=8)
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    within = sum(np.cov(x[y == c].T, bias=True) * (y == c).sum() for c in range(3)) / 60
    assert np.allclose(found.means, means, atol=1e-5)
    assert np.allclose(found.axes.T @ found.axes + np.diag(found.rest), within, atol=1e-3)
    thin = class_statistics.collect(x, y, 3, rank=2)
    assert thin.axes.shape == (2, 8)
    assert np.allclose(np.diag(thin.axes.T @ thin.axes) + thin.rest, np.diag(within), atol=1e-3)
    parts = class_statistics.collect(x[::2], y[::2], 3, rank=8)
    parts = class_statistics.more(parts, x[1::2], y[1::2], rank=8)
    assert np.array_equal(parts.counts, found.counts)
    assert np.allclose(parts.means, means, atol=1e-4)
    assert np.allclose(parts.axes.T @ parts.axes + np.diag(parts.rest), within, atol=1e-3)
    new = class_statistics.more(class_statistics.collect(x[y < 2], y[y < 2], 2, rank=8), x[y == 2], y[y == 2], rank=8)
    assert np.allclose(new.means, means, atol=1e-4)
    assert np.allclose(new.axes.T @ new.axes + np.diag(new.rest), within, atol=1e-3)


def test_drawn_items_have_these_moments_and_depend_on_what_they_are_alone():
    axes = np.array([[2, 1, 0], [0, 0, 1]], np.float32)
    known = class_statistics.ClassStatistics(
        np.array([5, 5]), np.array([[0, 0, 0], [1, 2, 3]], np.float32), axes, np.array([0.5, 0, 1], np.float32)
    )
    x = known.sample(1, 20000, seed=4)
    assert np.allclose(x.mean(0), [1, 2, 3], atol=0.06)
    assert np.allclose(np.cov(x.T), axes.T @ axes + np.diag([0.5, 0, 1]), atol=0.15)
    assert np.array_equal(known.sample(1, 20000, seed=4), x)
    assert not np.array_equal(known.sample(1, 20000, seed=4, turn=1), x)
    assert not np.array_equal(known.sample(0, 20000, seed=4) + known.means[1], x)


def test_packed_statistics_come_back_up_to_half_precision():
    draw = np.random.default_rng(1)
    x = (draw.normal(size=(50, 6)) * [1e-4, 1, 1e5, 1, 0, 1] + [0, 1e6, 0, -3, 7, 0]).astype(np.float32)
    found = class_statistics.collect(x, np.arange(50) % 3, 4, rank=4)
    back = statistics.unpack(statistics.pack(found))
    unit = np.sqrt(found.rest + (found.axes**2).sum(0)) + 1e-9
    assert np.array_equal(back.counts, [17, 17, 16, 0])
    assert (np.abs(back.means - found.means)[:3] < 0.01 * unit + 1e-6 * np.abs(found.means)[:3]).all()
    assert np.allclose(back.axes / unit, found.axes / unit, atol=2e-3)
    assert statistics.pack(found) == statistics.pack(found)


def test_columns_are_the_optimum_of_their_formula_and_leave_old_odds_alone():
    from scipy.optimize import minimize

    draw = np.random.default_rng(2)
    x = draw.normal(size=(60, 3)).astype(np.float32)
    y = draw.integers(0, 4, 60)  # classes 0, 1 are old
    old = draw.normal(size=(60, 2)).astype(np.float32)
    weight = draw.uniform(0.5, 2, 60)
    V, b = columns(old, x, y, weight, 2, l2=0.7)
    spread = x.std(0)

    def plain(flat):
        V, b = flat[:6].reshape(3, 2), flat[6:]
        z = np.concatenate([old, x @ V + b], 1)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return -(weight * np.log(p[np.arange(60), y])).sum() + 0.35 * ((V * spread[:, None]) ** 2).sum()

    best = minimize(plain, np.zeros(8), tol=1e-10)
    assert plain(np.concatenate([V.ravel(), b])) <= best.fun + 1e-3
    assert np.allclose(V.ravel(), best.x[:6], atol=5e-3)


def test_another_head_on_a_saved_graph_gives_the_bytes_that_a_fresh_one_has(fitted):
    from topwork.backbones import find

    graph = (fitted.folder / "model.onnx").read_bytes()
    old = weights.head_of((fitted.folder / "model.safetensors").read_bytes(), fitted.manifest["head"])
    assert onnx.regraft(graph, old, fitted.labels) == graph
    draw = np.random.default_rng(0)
    D = old.arrays["weight"].shape[0]
    new = Head("linear", {"weight": draw.normal(size=(D, 5)).astype("f"), "bias": np.zeros(5, "f")}, temperature=2.0)
    assert onnx.regraft(graph, new, "abcde") == onnx.compose(find("bundled"), new, "abcde")
    bank = {"bank": draw.normal(size=(9, D)).astype("f"), "votes": draw.dirichlet(np.ones(2), 9).astype("f")}
    knn = Head("knn", bank, settings={"k": 3})
    image = draw.integers(0, 256, (1, 50, 60, 3), dtype=np.uint8)
    said = ort.InferenceSession(onnx.regraft(graph, knn, "ab")).run(["features", "logits"], {"pixels": image})
    assert np.allclose(said[1], logits(knn, said[0]), atol=1e-4)


def test_features_of_a_saved_model_are_those_of_an_extraction(fitted):
    dataset = verbs.read(fitted.folder.parent / "three")
    extracted = verbs.extract(dataset, "bundled", engine="onnxruntime")
    mine = np.stack(list(fitted.features(dataset.paths())))
    assert np.abs(mine - extracted.x).max() < 1e-3 * np.abs(mine).max()
    known = statistics.read(fitted.folder)
    y = dataset.targets()
    assert np.allclose(known.means, np.stack([mine[y == c].mean(0) for c in range(3)]), atol=0.01 * mine.std())


@pytest.fixture(scope="module")
def extended(fitted, tmp_path_factory):
    base = tmp_path_factory.mktemp("more")
    new = pictures(base / "new", ("rose",), 12, seed=1)
    test = pictures(base / "test", COLOURS, 8, seed=2)
    heard = []
    model = tw.extend(fitted, new, out=base / "model", test=test, watch=verbs.Watch(say=heard.append))
    return model, test, heard


def test_a_class_is_added_and_the_old_ones_are_kept(fitted, extended):
    model, test, heard = extended
    assert model.labels == ("amber", "moss", "slate", "rose")
    numbers = model.report
    rows = {row["label"]: row for row in numbers["retention"]["rows"]}
    assert list(rows) == list(model.labels)
    assert rows["rose"]["before"] is None
    assert rows["rose"]["after"]["value"] >= 0.75  # it is learnt
    assert rows["rose"]["after"]["n"] == 8
    for label in fitted.labels:  # against asking both models anew
        for side, asked in (("before", fitted), ("after", model)):
            right = np.mean([p.label == label for p in asked.predict(sorted((test / label).iterdir()))])
            assert rows[label][side]["value"] == pytest.approx(right)
    old = numbers["retention"]["old"]
    assert old["difference"] > -0.15
    assert old["low"] <= old["difference"] <= old["high"]
    assert any(line.startswith("Old classes: ") for line in heard)
    assert numbers["proof"]["agreement"] == 1
    assert tw.evaluate(model, test)["metrics"]["accuracy"]["value"] == numbers["metrics"]["accuracy"]["value"]
    assert (model.folder / "report.html").stat().st_size > 1000


def test_backbone_and_old_odds_stay(fitted, extended):
    model, test, _ = extended
    a, b = (weights.head_of((m.folder / "model.safetensors").read_bytes(), m.manifest["head"]) for m in (fitted, model))
    paths = sorted((test / "moss").iterdir())
    x, again = (np.stack(list(m.features(paths))) for m in (fitted, model))
    assert np.array_equal(x, again)
    before, after = logits(a, x) / a.temperature, logits(b, x)[:, :3]
    assert np.allclose(before - before[:, :1], after - after[:, :1], atol=1e-3)
    known = statistics.read(model.folder)
    assert known.counts.tolist() == [14, 14, 14, 12]


def test_without_test_items_it_says_that_it_asks_drawn_ones(fitted, tmp_path):
    new = pictures(tmp_path / "new", ("rose", "moss"), 9, seed=3)  # and more of an old class
    model = tw.extend(fitted.folder, new, out=tmp_path / "model")
    found = model.report["retention"]
    assert "drawn from what the model remembers" in found["text"]
    assert [row["label"] for row in found["rows"] if row["new"]] == ["rose"]
    assert model.manifest["head"]["method"] == "logistic on drawn items"
    assert model.report["evaluated_on"]["kind"] == "cross-validation"
    assert statistics.read(model.folder).counts.tolist() == [14, 23, 14, 9]
    again = tw.extend(model, pictures(tmp_path / "more", ("rose",), 4, seed=4), out=tmp_path / "again")
    assert again.labels == model.labels
    assert statistics.read(again.folder).counts.tolist() == [14, 23, 14, 13]


def test_what_cannot_be_extended_says_why(fitted, tmp_path):
    few = pictures(tmp_path / "few", ("rose", "amber"), 1, seed=5)
    with pytest.raises(BadData, match="too few images of new classes"):
        tw.extend(fitted, few, out=tmp_path / "model")
    assert not (tmp_path / "model").exists()
    old = tmp_path / "old"
    old.mkdir()
    manifest = json.loads((fitted.folder / "model.json").read_text())
    del manifest["files"]["statistics.safetensors"], manifest["files"]["snapshot.safetensors"]
    (old / "model.json").write_text(json.dumps(manifest))
    for name in bundle.CHECKED:
        (old / name).write_bytes((fitted.folder / name).read_bytes())
    with pytest.raises(BadSetting, match=r"holds no statistics\.safetensors"):
        tw.extend(old, few, out=tmp_path / "model")
    assert load(old).labels == fitted.labels  # it can be used all the same
    several = dataclasses.replace(fitted, manifest={**fitted.manifest, "multilabel": True})
    with pytest.raises(BadSetting, match="several labels"):
        extending.Old.of(several)


def test_damaged_statistics_are_told(fitted, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in fitted.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    data = bytearray((folder / "statistics.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "statistics.safetensors").write_bytes(data)
    with pytest.raises(BadWeights, match="was changed after it was written"):
        load(folder)


def test_digits_keep_four_classes_and_learn_a_fifth():
    """Against forgetting: the same new items without what is remembered, and against solving on all real items."""
    from sklearn.datasets import load_digits

    from topwork import plugins

    digits = load_digits(n_class=5)
    x, y = digits.data.astype(np.float32), digits.target
    order = np.random.default_rng(0).permutation(len(y))
    test, train = order[:300], order[300:]
    first, later = train[y[train] < 4], train[y[train] == 4][:30]
    solver = plugins.make("adaptation.probe", "logistic")

    def solved(x, y, C):
        head = solver.solve(x, y, np.arange(len(y)) % 5, C).head
        return head.arrays["weight"], head.arrays["bias"]

    W, b = solved(x[first], y[first], 4)
    known = statistics.unpack(statistics.pack(class_statistics.collect(x[first], y[first], 4, statistics.RANK)))
    z, of = extending._drawn(known, extending.DRAWN, 0, turn=0)
    all_x, all_y = np.concatenate([z, x[later]]), np.concatenate([of, y[later]])
    V, c = columns(all_x @ W + b, all_x, all_y, np.ones(len(all_y)), 1)
    p = np.concatenate([x[test] @ W + b, x[test] @ V + c], 1)
    right = p.argmax(1) == y[test]
    old, new = right[y[test] < 4].mean(), right[y[test] == 4].mean()
    assert old > 0.97
    assert new > 0.75
    assert losses(p.astype(np.float32), y[test]).mean() < 0.3
