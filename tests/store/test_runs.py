import json

import pytest
import torch

from topwork.errors import BadSetting, StoreError
from topwork.store.runs import Run, check

SETTINGS = {"data": "abc", "batch": 64, "methods": ["supervised"]}


def tensors(step):
    return {"w": torch.full((3, 2), float(step)), "n": torch.tensor(step)}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "net.run"


def test_goes_on_where_it_was(folder):
    with Run(folder, SETTINGS) as run:
        assert run.load() is None
        run.decide(steps=100)
        run.log([{"step": i, "loss": 1.0} for i in range(7)])
        run.save(5, tensors(5))
    assert check(folder, SETTINGS)
    with Run(folder, SETTINGS) as run:
        kept = run.load()
        assert run.step == 5
        assert torch.equal(kept["w"], tensors(5)["w"])
        assert run.decided == {"steps": 100}
        assert [line["step"] for line in run.read_log()] == [0, 1, 2, 3, 4]  # what came after is done again
        assert run.elapsed() >= run.seconds >= 0


def test_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(folder):
    with Run(folder, SETTINGS) as run:
        for step in (1, 2, 3):
            run.save(step, tensors(step))
    assert sorted(f.name for f in folder.glob("state-*")) == [
        "state-000000002.safetensors",
        "state-000000003.safetensors",
    ]
    newest = folder / "state-000000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with Run(folder, SETTINGS) as run:
        assert int(run.load()["n"]) == run.step == 2
        run.save(4, tensors(4))
    with Run(folder, SETTINGS) as run:
        assert int(run.load()["n"]) == 4
    for file in folder.glob("state-*"):
        file.unlink()
    with Run(folder, SETTINGS) as run:
        assert run.load() is None
        assert run.step == 0


def test_a_kill_between_the_file_and_its_name_leaves_the_old_one(folder, monkeypatch):
    with Run(folder, SETTINGS) as run:
        run.save(1, tensors(1))
        monkeypatch.setattr(run, "_write", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run.save(2, tensors(2))
    with Run(folder, SETTINGS) as run:
        assert int(run.load()["n"]) == 1


def test_other_settings_are_refused_with_what_differs(folder):
    Run(folder, SETTINGS).close()
    with pytest.raises(
        BadSetting, match=r"batch: was 64, is 32; size: was null, is 96.*or remove .*net.run to begin anew"
    ):
        Run(folder, {**SETTINGS, "batch": 32, "size": 96})
    with pytest.raises(BadSetting, match='data: was "abc", is "abd"'):
        check(folder, {**SETTINGS, "data": "abd"})


def test_one_process_at_a_time(folder):
    with Run(folder, SETTINGS), pytest.raises(StoreError, match="Another process trains in"):
        Run(folder, SETTINGS)
    Run(folder, SETTINGS).close()


def test_foreign_and_damaged_folders_are_refused(folder):
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match=r"not a training run \(no run.json in it\). Choose another --out"):
        Run(folder, SETTINGS)
    (folder / "thesis.tex").unlink()
    Run(folder, SETTINGS).close()
    (folder / "run.json").write_text("{")
    with pytest.raises(StoreError, match=r"Remove .* to begin anew"):
        Run(folder, SETTINGS)
    (folder / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="another version of Topwork"):
        Run(folder, SETTINGS)


def test_due_after_its_seconds(folder):
    with Run(folder, SETTINGS, save_seconds=0) as run:
        assert run.due()
    with Run(folder, SETTINGS, save_seconds=1000) as run:
        assert not run.due()


def test_a_cut_off_line_of_the_log_is_passed_over(folder):
    with Run(folder, SETTINGS) as run:
        run.log([{"step": 0, "loss": 2.0}])
        with (folder / "log.jsonl").open("a") as file:
            file.write('{"step": 1, "lo')
        assert run.read_log() == [{"step": 0, "loss": 2.0}]


def test_removed_when_it_is_over(folder):
    run = Run(folder, SETTINGS)
    run.save(1, tensors(1))
    run.remove()
    assert not folder.exists()


def test_curves_are_means_of_neighbouring_steps(folder):
    with Run(folder, SETTINGS) as run:
        assert run.curves() == {"steps": [], "seconds": [], "terms": {}}
        run.log(
            [
                {"step": i, "rate": 0.1, "seconds": i / 2, "task": float(i), **({"l2": 1.0} if i > 4 else {})}
                for i in range(10)
            ]
        )
        assert run.curves(most=5) == {
            "steps": [2, 4, 6, 8, 10],
            "seconds": [0.5, 1.5, 2.5, 3.5, 4.5],
            "terms": {"task": [0.5, 2.5, 4.5, 6.5, 8.5], "l2": [None, None, 1.0, 1.0, 1.0]},
        }
        assert run.curves(most=99)["terms"]["task"] == list(map(float, range(10)))
        for most in (1, 3, 7):
            points = run.curves(most)
            assert len(points["steps"]) == most
            assert points["steps"][-1] == 10
