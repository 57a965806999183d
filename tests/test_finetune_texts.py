"""Tuned steps on texts: cached states, long texts, SetFit, what is shipped, resume to the same bits."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from topwork import finetune  # noqa: E402
from topwork.adaptation.graft import techniques  # noqa: E402
from topwork.backbones import find  # noqa: E402
from topwork.backbones.tuned import checksum  # noqa: E402
from topwork.errors import BadSetting  # noqa: E402
from topwork.finetune import pace  # noqa: E402
from topwork.ground import divide  # noqa: E402
from topwork.modalities.text import buckets  # noqa: E402
from topwork.nn.session import session  # noqa: E402
from topwork.store import runs  # noqa: E402
from topwork.terms import Terms  # noqa: E402
from topwork.types import Head, Probe, Watch  # noqa: E402

from . import encoders  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return encoders.write(tmp_path_factory.mktemp("encoders") / "tiny")


def frozen(backbone, texts):
    """(N, D) by the module: means over windows."""
    tokens, module = backbone.reader.read(texts), backbone.module()
    sums, counts = 0, np.bincount(tokens.owner)[:, None]
    for batch in buckets(tokens.lengths, 512):
        with torch.no_grad():
            z = module(*map(torch.from_numpy, tokens.padded(batch))).numpy()
        sums = sums + np.stack([z[tokens.owner[batch] == n].sum(0) for n in range(len(texts))])
    return (sums / counts).astype(np.float32)


def start(spec, ground):
    """What a tuned step begins with."""
    backbone = find(spec, "text")
    x, y = frozen(backbone, ground.dataset.inputs()), ground.dataset.targets()
    from topwork.adaptation import probe as probes

    best, _ = probes.choose(x, y, ground.folds, 2, methods=("logistic(l2=0.01)",))
    return finetune.Start(backbone, lambda rows: x[rows], best)


def bench(encoder, spec, run=None, watch=None, **data):
    ground = divide(encoders.dataset(**data))
    given = start(encoder, ground)
    return finetune.Bench.of(ground, spec, techniques(spec), given, Terms(None, float("inf"), watch or Watch(), run))


def trained(b, watch=None):
    return b.train(pace.decide(b, float("inf"), 1).plan, b.ground.train, "on everything")


def test_cached_states_give_the_weights_that_the_whole_encoder_gives(encoder):
    spec = "last_stages(2, epochs=2, batch=8, store='float32', views={views}, optimizer='sgd', rate=0.05)"
    found = []
    for views in (1, 0):
        b = bench(encoder, spec.format(views=views), long=10)
        assert (b.cached is None) == (views == 0)
        tuned, head, facts = b.shipped(trained(b))
        assert facts["proofs"]["frozen"] > 10
        assert facts["proofs"]["free_moved"] > 10
        found.append((tuned.trunk.state_dict(), head.arrays["weight"]))
    (cached, head), (whole, other) = found
    assert max(float((cached[name] - whole[name]).abs().max()) for name in whole) < 2e-6
    assert np.abs(head - other).max() < 2e-6


def test_long_texts_show_another_window_and_are_asked_as_a_whole(encoder):
    b = bench(encoder, "lp_ft(epochs=1, batch=8)", long=6)
    texts = b.material
    rows = np.arange(len(b.ground.dataset))
    counts = texts.first[1:] - texts.first[:-1]
    assert set(counts[:-6]) == {1}
    assert counts[-6:].min() >= 3
    shown = np.stack([texts.window(rows, np.full(len(rows), visit)) for visit in range(40)])
    assert ((shown >= texts.first[:-1]) & (shown < texts.first[1:])).all()
    assert all(len(set(shown[:, row])) == counts[row] for row in rows[-6:])
    model = b.method(rows).prepare(b.trunk(), b.feed.facts(16, 1, 0))
    assert np.abs(texts.features(model, rows, "cpu") - b.start.x(rows)).max() < 1e-5
    some = np.array([58, 3, 57])
    assert np.abs(b.logits(model, some) - b.logits(model, rows)[some]).max() < 1e-5
    x = torch.from_numpy(b.start.x(some))
    assert np.abs(model.head(x).detach().numpy() - b.logits(model, some)).max() < 1e-4


def test_batches_are_padded_to_their_own_longest(encoder):
    b = bench(encoder, "lp_ft(epochs=1, batch=8)")
    from topwork.adaptation.feed import Setup

    method = b.method(b.ground.train)
    for _, [[batch]] in b.feed_of(b.ground.train).batches([method], 0, Setup(6, 8)):
        _, weights = batch.views
        assert weights.shape[1] == int(weights.sum(1).max())


@pytest.mark.parametrize("spec", [
    "full(epochs=1, batch=8, layer_decay=0.7)", "lora(2, epochs=1, batch=8)", "bitfit(epochs=1, batch=8)",
    "adapters(4, epochs=1, batch=8)", "gradual_unfreezing(epochs=1, batch=8)", "setfit(epochs=1)",
    "lp_ft(epochs=1, batch=8) + token_dropout(0.2) + l2_sp + mlp_head(8)",
    "last_stages(1, epochs=1, batch=8) + token_dropout + bss", "lp_ft(epochs=1, batch=8) + synonyms(0.3, near=0.05)",
])  # fmt: skip
def test_ways_of_tuning_work_on_encoders(encoder, spec):
    b = bench(encoder, spec, per_class=10)
    before = checksum(b.start.backbone.module())
    done = trained(b)
    tuned, head, facts = b.shipped(done)
    assert tuned.card.modality == "text"
    assert facts["proofs"]["weights"] != before
    rows = np.arange(6)
    tokens = tuned.reader.read(b.ground.dataset.inputs()[:6])
    with torch.no_grad():
        z = tuned.module()(*map(torch.from_numpy, tokens.padded(np.arange(6)))).numpy()
    gap = np.abs(z @ head.arrays["weight"] + head.arrays["bias"] - b.logits(done.model, rows)).max()
    assert gap < (1e-4 if b.cached is None else 1e-2)  # states are stored in half precision


def test_a_tuned_encoder_is_exported_with_its_reader(encoder):
    b = bench(encoder, "setfit(epochs=2)", per_class=10)
    tuned, _, _ = b.shipped(trained(b))
    ids, weights = tuned.reader.read(["the old rose", "a wave and the gull near a small reef"]).padded(np.arange(2))
    found = session(tuned.graph()).run(None, {"ids": ids, "weights": weights})[0]
    with torch.no_grad():
        wanted = tuned.module()(torch.from_numpy(ids), torch.from_numpy(weights)).numpy()
    assert np.abs(found - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())
    assert tuned.reader.files().keys() >= {"tokenizer.json", "reader.json"}


def test_setfit_beats_the_frozen_probe_with_few_labels(encoder):
    """A real effect: twenty labels a class, a random encoder, words that decide."""
    data = encoders.dataset(per_class=20, seed=1)
    ground = divide(data)
    given = start(encoder, ground)
    texts, y = encoders.texts(100, seed=9)
    head = given.probe.head
    before = (frozen(given.backbone, texts) @ head.arrays["weight"] + head.arrays["bias"]).argmax(1) == y
    spec = "setfit(epochs=30, rate=5e-3)"
    b = finetune.Bench.of(ground, spec, techniques(spec), given, Terms(None, float("inf"), Watch()))
    tuned, head, _ = b.shipped(trained(b))
    after = (frozen(tuned, texts) @ head.arrays["weight"] + head.arrays["bias"]).argmax(1) == y
    assert after.mean() > before.mean() + 0.1


def test_killed_and_resumed_gives_the_same_bits(encoder, tmp_path):
    class Killed(BaseException):
        pass

    def kill(stage, done, _total):
        if done == 5 and "on everything" in stage:
            raise Killed

    spec = "last_stages(1, epochs=4, batch=8) + token_dropout"
    calm = bench(encoder, spec, tmp_path / "calm", long=8)
    wanted = checksum(trained(calm).trunk)
    for again in (Watch(progress=kill), None):
        b = bench(encoder, spec, tmp_path / "killed", again, long=8)
        if again is None:
            assert checksum(trained(b).trunk) == wanted
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs.Run, "due", lambda _: True)
            with pytest.raises(Killed):
                trained(b)
        assert list((tmp_path / "killed").rglob("state-*.safetensors"))


def test_what_cannot_be_is_said_before_any_work(encoder):
    backbone = find(encoder, "text")
    for spec, says in {
        "last_stages(9)": "has 4 stages",
        "lp_ft + mixup": "mixup works on images",
        "setfit(pairs=0)": "pairs=0",
        "last_stages(1) + synonyms": "synonyms changes what goes into the backbone",
    }.items():
        with pytest.raises(BadSetting, match=says):
            finetune.check(spec, backbone)
    finetune.check("last_stages(2) + token_dropout", backbone)
    small = find("bundled:text_small", "text")
    with pytest.raises(BadSetting, match="no list of blocks"):
        finetune.check("last_stages(1)", small)
    finetune.check("lp_ft", small)


def test_states_that_do_not_fit_are_said_and_everything_runs(encoder, monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE_GB", "0.000001")
    b = bench(encoder, "last_stages(1, epochs=1, batch=8)", per_class=10)
    assert b.cached is None
    assert "the disk budget is" in str(b.said[-1])
    before = {n: t.clone() for n, t in b.start.backbone.module().state_dict().items()}
    after = trained(b).trunk.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("network.encoder.layer.2.") for name in moved)


def test_tuning_keeps_to_its_probe(encoder):
    """A head of zeros where the head is new, the probe's where it is not."""
    b = bench(encoder, "lp_ft(epochs=1, batch=8)", per_class=10)
    head = b.method(b.ground.train)
    assert np.abs(head.weight).max() > 0
    assert isinstance(b.start.probe, Probe)
    assert isinstance(b.start.probe.head, Head)
