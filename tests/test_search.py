"""A search over tunings: honest folds, trials that are kept, bad settings that stop before work."""

import time

import pytest

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

import topwork as tw  # noqa: E402
from topwork import finetune, search  # noqa: E402
from topwork.errors import BadSetting  # noqa: E402
from topwork.finetune import pace  # noqa: E402
from topwork.terms import Terms  # noqa: E402
from topwork.types import Watch  # noqa: E402

from .tuning import bench  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
TORCH = {"engine": "torch"}


def test_what_judges_is_not_what_is_asked(stripes, backbone, monkeypatch, tmp_path):
    asked = []
    real = finetune.tune

    def spy(ground, spec, *rest, **more):
        asked.append((set(ground.train.tolist()), more["asked"], spec))
        return real(ground, spec, *rest, **more)

    monkeypatch.setattr(finetune, "tune", spy)
    monkeypatch.setattr(pace, "PRESENTATIONS", 160)
    monkeypatch.setattr(pace, "EPOCHS", (1, 2))
    b = bench(stripes, "lp_ft", backbone)
    asked.clear()
    heard = []
    found = search.tune(
        b.ground,
        "search(trials=2)",
        b.start,
        Terms(None, time.monotonic() + 300, Watch(say=heard.append), tmp_path, extraction=TORCH),
    )
    folds = b.ground.folds
    kept_out = set(b.ground.train[folds[b.ground.train] == 0].tolist())
    *trials, last = asked
    assert len(trials) == 2
    assert all(not rows & kept_out and fold == [1] for rows, fold, _ in trials)
    assert last[1] == [0]
    assert last[2] in {spec for _, _, spec in trials}
    assert set(found.rows.tolist()) == kept_out
    asked.clear()  # once more: the trials are there
    terms = Terms(None, time.monotonic() + 300, Watch(), tmp_path, extraction=TORCH)
    search.tune(b.ground, "search(trials=2)", b.start, terms)
    assert [fold for _, fold, _ in asked] == [[0]]


@pytest.mark.parametrize("spec", ["search(trials=0)", "search(rounds=3)", "search(trials='many')"])
def test_bad_settings_stop_before_work(stripes, backbone, tmp_path, spec):
    with pytest.raises(BadSetting, match="search"):
        tw.fit(stripes, backbone=backbone, steps=["probe", spec], out=tmp_path / "model")
