"""Trackers with stand-ins for their packages: what is written where, and that a training outlives its tracker."""

import sys
import types

import pytest

from topwork import plugins
from topwork.errors import BadSetting, MissingExtra, UnknownName
from topwork.store import tracking
from topwork.types import Watch


@pytest.fixture
def board(monkeypatch):
    """Every SummaryWriter that was opened, with its scalars."""
    pytest.importorskip("torch")
    opened = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
            opened.append(self)

        def add_scalar(self, name, value, step):
            assert not self.closed
            self.scalars.append((name, value, step))

        def close(self):
            self.closed = True

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setattr("torch.utils.tensorboard", fake, raising=False)
    return opened


@pytest.fixture
def flow(monkeypatch):
    """Runs of a server in memory: name -> (state, metrics)."""
    runs, experiments = {}, []

    class Client:
        def __init__(self, tracking_uri):
            if tracking_uri == "nowhere":
                raise ConnectionError("nobody answers")

        def get_experiment_by_name(self, name):
            return types.SimpleNamespace(experiment_id=name) if name in experiments else None

        def create_experiment(self, name):
            experiments.append(name)
            return name

        def create_run(self, experiment, run_name):
            assert experiment in experiments
            runs[run_name] = ["RUNNING", []]
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_name))

        def log_batch(self, run, metrics):
            assert len(metrics) <= 1000  # the server's limit
            runs[run][1].extend(metrics)

        def set_terminated(self, run):
            runs[run][0] = "FINISHED"

    flow, entities = types.ModuleType("mlflow"), types.ModuleType("mlflow.entities")
    flow.MlflowClient = Client
    entities.Metric = lambda key, value, timestamp, step: (key, value, step)
    monkeypatch.setitem(sys.modules, "mlflow", flow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return runs


def test_tensorboard_gets_a_folder_for_every_training(board, tmp_path):
    said, seen = [], []
    watch = Watch(say=said.append, track=lambda *numbers: seen.append(numbers))
    with tracking.keeping(tracking.make("tensorboard"), tmp_path / "model", watch) as kept:
        kept.track("lp_ft fold 1 of 2", 7, {"rate": 0.1, "task": 2.0})
        kept.track("lp_ft fold 1 of 2", 8, {"rate": 0.1, "task": 1.0})
        kept.track("lp_ft on everything", 0, {"task": 3.0})
    assert [w.folder for w in board] == [
        str(tmp_path / "model.tensorboard" / name) for name in ("lp_ft-fold-1-of-2", "lp_ft-on-everything")
    ]
    assert [w.purge_step for w in board] == [7, 0]  # what was written of these steps before is hidden
    assert board[0].scalars == [("rate", 0.1, 7), ("task", 2.0, 7), ("rate", 0.1, 8), ("task", 1.0, 8)]
    assert all(w.closed for w in board)
    assert len(seen) == 3  # whoever watched before still does
    assert said == [f"curves: tensorboard --logdir {tmp_path / 'model.tensorboard'}"]


def test_a_folder_can_be_named(board, tmp_path):
    with tracking.keeping(
        tracking.make(f"tensorboard({str(tmp_path / 'logs')!r})"), tmp_path / "model", Watch()
    ) as kept:
        kept.track("../..", 0, {"task": 1.0})
    assert board[0].folder == str(tmp_path / "logs" / "training")  # never outside


def test_mlflow_gets_a_run_for_every_training(flow, tmp_path):
    with tracking.keeping(tracking.make("mlflow"), tmp_path / "flowers", Watch()) as kept:
        for step in range(700):
            kept.track("fold 1 of 2", step, {"rate": 0.1, "task": 1 / (step + 1)})
        kept.track("on everything", 0, {"task": 3.0})
    assert {name: (state, len(metrics)) for name, (state, metrics) in flow.items()} == {
        "fold 1 of 2": ("FINISHED", 1400),
        "on everything": ("FINISHED", 1),
    }
    assert flow["fold 1 of 2"][1][3] == ("task", 0.5, 1)


def test_a_tracker_that_breaks_does_not_end_the_training(board, tmp_path):
    said = []
    with tracking.keeping(tracking.make("tensorboard"), tmp_path / "model", Watch(say=said.append)) as kept:
        kept.track("t", 0, {"task": 1.0})
        board[0].closed = True
        for step in range(3):
            kept.track("t", step, {"task": 1.0})
    assert sum("the training goes on" in line for line in said) == 1


def test_settings_that_cannot_work_stop_before_work(flow, tmp_path, monkeypatch):
    assert tracking.make(None) is tracking.make("none") is None
    with pytest.raises(UnknownName, match="mlflow, tensorboard"):
        tracking.make("wandb")
    with (
        pytest.raises(BadSetting, match="nobody answers"),
        tracking.keeping(tracking.make("mlflow('nowhere')"), tmp_path / "m", Watch()),
    ):
        pytest.fail("it was opened")
    for name in plugins.names(tracking.ROOM):
        monkeypatch.setitem(sys.modules, "mlflow", None)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(MissingExtra, match=f"--track {name} needs the package {name}. .*pip install {name}"):
            tracking.make(name)


def test_nothing_is_kept_where_nobody_asked(tmp_path):
    watch = Watch()
    with tracking.keeping(None, tmp_path, watch) as kept:
        assert kept is watch
