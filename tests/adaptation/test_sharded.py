"""A model in parts learns what one in every process does; its checkpoints and what is handed back are whole."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from topwork.adaptation import sharded

WORK = """
    import json, shutil, sys
    from pathlib import Path
    import numpy as np
    import torch
    from torch import nn
    from topwork import processes
    from topwork.adaptation import loop, sharded
    from topwork.adaptation.feed import Feed
    from topwork.adaptation.checkpoint import Memory
    from topwork.adaptation.graft import Tune, techniques
    from topwork.adaptation.patience import Judge
    from topwork.adaptation.plan import Plan
    from topwork.nn.ema import tensors_of
    from topwork.store.runs import Run
    from topwork.types import Watch

    processes.together()
    torch.set_num_threads(1)
    r = processes.rank()
    N, S, C, D = 24, 8, 3, 4
    X = np.random.default_rng(0).integers(0, 256, (N, S, S, 3), dtype=np.uint8)
    feed = Feed(lambda rows, _: X[rows], np.arange(N) % C, S, classes=(C,))
    weight = np.random.default_rng(2).normal(size=(D, C)).astype(np.float32)
    plan = Plan(steps=8, batch=9, rate=1e-2, ema=0.9, parts=2, seed=3)
    parts, real = [], Memory.__init__

    def seen(self, model, *more):
        parts.append(sum(getattr(p, "_local_tensor", p).numel() for p in model.parameters()))
        real(self, model, *more)

    Memory.__init__ = seen
    for folder, spec, stop in json.loads(sys.argv[1]):
        torch.manual_seed(1)
        layers = [nn.Conv2d(3, 5, 3, 2, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, D, 3)]
        trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        tune = Tune(techniques(spec), weight, np.zeros(C, np.float32), stages=(("0", "1"), ("3",)), views=("plain",))
        asked = []

        def judged(model):
            asked.append({type(p).__name__ for p in model.parameters()})
            return float(sum(p.square().sum() for p in model.parameters()))

        def progress(stage, done, total):
            if done == stop:
                raise InterruptedError

        run, model = Run(Path(folder), {}, save_seconds=0) if r == 0 else None, None
        try:
            model = loop.train(trunk, [tune], feed, plan, run, Watch(progress=progress), Judge(judged, 3, 9))
        except InterruptedError:
            pass
        values = [] if model is None else {k: t.flatten().tolist() for k, t in model.state_dict().items()}
        kept = {k: list(t.shape) for k, t in run.load().items()} if run else {}
        if run:
            run.close()
        if run and model is None:
            shutil.copytree(folder, folder + "2")
        print(json.dumps([r, values, kept, parts[-1], len(asked), model is None or model.trunk is trunk]))
"""


def learn(tmp_path, jobs, count, **env):
    """For each job what each process has to tell."""
    (tmp_path / "work.py").write_text(textwrap.dedent(WORK))
    many = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    jobs = [[str(tmp_path / name), spec, stop] for name, spec, stop in jobs]
    env = {**os.environ, "TOPWORK_DEVICE": "cpu", "OMP_NUM_THREADS": "1", **env}
    words = [sys.executable, *many, str(tmp_path / "work.py"), json.dumps(jobs)]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return list(zip(*([told[1:] for told in said if told[0] == r] for r in range(count)), strict=True))


WRAP = {"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP", "FSDP_MIN_NUM_PARAMS": "100"}
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **WRAP}
SPECS = ("full + l2_sp", "gradual_unfreezing")


@pytest.mark.slow
def test_in_parts_it_learns_what_whole_ones_learn_and_any_number_goes_on(tmp_path):
    whole = learn(tmp_path, [(f"whole{i}", spec, 0) for i, spec in enumerate(SPECS)], 2)
    jobs = [(f"cut{i}", spec, 0) for i, spec in enumerate(SPECS)]
    cut = learn(tmp_path, [*jobs, ("a", SPECS[0], 5), ("a", SPECS[0], 0)], 2, **FSDP)
    for (first, second), (own, other) in zip(whole, cut[:2], strict=True):
        values, kept, size, asked, _ = first
        found, found_kept, part, found_asked, same = own
        assert (values, found) == (second[0], other[0])
        assert found.keys() == values.keys()
        for name, value in values.items():
            assert found[name] == pytest.approx(value, abs=1e-4), name
        assert part + other[2] == size  # each keeps its own
        assert max(part, other[2]) < 0.8 * size
        assert found_kept == kept  # all of every tensor, under the same names
        assert asked == found_asked == 2
        assert same
    through, stopped, again = cut[0][0][0], cut[2][0][0], cut[3][0][0]
    assert stopped == []
    assert again == through  # to the bit
    (alone,) = learn(tmp_path, [("a2", SPECS[0], 0)], 1)
    for name, value in through.items():
        assert alone[0][0][name] == pytest.approx(value, abs=1e-4), name


def test_one_process_has_no_parts(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert not sharded.asked()
    assert sharded.options() == {}
    t = torch.arange(3)
    assert sharded.whole(t) is t
    assert sharded.like(t, torch.zeros(3)) is t
