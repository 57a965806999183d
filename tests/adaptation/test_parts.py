"""A network that claims to have no room: smaller parts, the same step, said, remembered, and an end to it."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from topwork.adaptation import Method
from topwork.adaptation.feed import Feed
from topwork.adaptation.loop import train
from topwork.adaptation.parts import ran_out, twice
from topwork.adaptation.patience import Judge
from topwork.adaptation.plan import Plan
from topwork.adaptation.pretraining.supervised import Supervised
from topwork.adaptation.rehearsal import find_rate, pace
from topwork.errors import BadSetting
from topwork.store.runs import Run
from topwork.types import Watch

pytestmark = pytest.mark.usefixtures("one_thread")

N, S, C = 24, 8, 3
X = np.random.default_rng(0).integers(0, 256, (N, S, S, 3), dtype=np.uint8)
FEED = Feed(lambda rows, _: X[rows], np.arange(N) % C, S, classes=(C,))
PLAN = Plan(steps=10, batch=8, rate=1e-2, seed=5)
GPU = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB"
CPU = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "64000000000 bytes. Error code 12 (Cannot allocate memory)"
)


class Cramped(nn.Module):
    """Has room for so many images while it learns, and had more up to some forward pass."""

    def __init__(self, room, error=None, until=0, backward=False, norm=True):
        super().__init__()
        torch.manual_seed(0)
        norms = nn.BatchNorm2d(4) if norm else nn.Identity()
        layers = [nn.Conv2d(3, 4, 3, 2, bias=not norm), norms, nn.ReLU()]  # a bias below a norm learns from rounding
        layers += [nn.Dropout(0.3 if norm else 0), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.layers = nn.Sequential(*layers)
        self.room, self.until, self.backward, self.passes, self.failed = room, until, backward, 0, 0
        self.error = error or torch.OutOfMemoryError(GPU)

    def forward(self, x):
        y = self.layers(x)  # statistics of batch norms have moved by then
        if not self.training:
            return y
        self.passes += 1
        if len(x) > self.room and self.passes > self.until:
            self.failed += 1
            if not self.backward:
                raise self.error
            y.register_hook(self._fail)
        return y

    def _fail(self, grad):
        raise self.error


@dataclass(frozen=True)
class Mean(Method):
    """Nothing random, and no item knows of the others."""

    views = ("plain",)

    def prepare(self, trunk, facts):
        model = nn.Module()
        model.trunk = trunk
        return model

    def loss(self, model, batch):
        return {"gap": ((model.trunk(batch.views[0]) - 1) ** 2).mean()}


def bits(model):
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in model.state_dict().values())).hexdigest()


def expected(parts, **changes):
    return bits(train(Cramped(99), [Supervised()], FEED, dataclasses.replace(PLAN, parts=parts, **changes)))


@pytest.mark.parametrize(
    ("error", "backward"),
    [(None, False), (None, True), (RuntimeError(CPU), False), (MemoryError(), True)],
)
def test_the_same_bits_as_if_begun_with_so_many_parts(tmp_path, error, backward):
    said, trunk = [], Cramped(2, error, backward=backward)
    with Run(tmp_path / "run", {}) as run:
        found = train(trunk, [Supervised()], FEED, PLAN, run, Watch(say=said.append), stage="full on everything")
        assert run.decided == {"parts": 4}
        assert [line["step"] for line in run.read_log()] == list(range(PLAN.steps))
    assert bits(found) == expected(4)
    assert trunk.failed == 2
    why = {torch.OutOfMemoryError: "CUDA out of memory", MemoryError: "MemoryError"}.get(
        type(trunk.error), "DefaultCPUAllocator: can't allocate memory: you tried to allocate 64000000000 bytes"
    )
    told = "full on everything, parts of a step {}: memory ran out with {} ({}); the same step, but batch norms and "
    told += "losses that compare items see {} of 8 at a time"
    for line, (new, old, items) in zip(said[:2], ((2, 1, 4), (4, 2, 2)), strict=True):
        assert line.startswith(told.format(new, old, why, items)[: line.find(";")])
        assert line.endswith(f"see {items} of 8 at a time")


def test_where_items_do_not_meet_it_is_the_step_of_the_whole_batch():
    one = train(Cramped(99, norm=False), [Mean()], FEED, PLAN)
    two = train(Cramped(1, norm=False), [Mean()], FEED, PLAN)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_what_was_found_out_is_kept_for_the_resume(tmp_path):
    def stop(_stage, done, _total):
        if done == 6:
            raise InterruptedError

    trunk = Cramped(4)
    with Run(tmp_path / "run", {}, save_seconds=0) as run, pytest.raises(InterruptedError):
        train(trunk, [Supervised()], FEED, PLAN, run, Watch(progress=stop))
    again = Cramped(4)
    with Run(tmp_path / "run", {}) as run:
        assert bits(train(again, [Supervised()], FEED, PLAN, run)) == expected(2)
    assert (trunk.failed, again.failed) == (1, 0)


def test_memory_that_runs_out_late_takes_it_back_to_the_last_state(tmp_path):
    def stop(_stage, done, _total):
        if done == 6:
            raise InterruptedError  # five are saved

    def judged(folder, trunk, watch=None):
        judge = Judge(lambda model: float(sum(p.square().sum() for p in model.parameters())), 2, 9)
        with Run(tmp_path / folder, {}, save_seconds=0) as run:
            model = train(trunk, [Supervised()], FEED, PLAN, run, watch, judge)
            return bits(model), [(line["step"], line["cross_entropy"]) for line in run.read_log()]

    with pytest.raises(InterruptedError):
        judged("two", Cramped(99), Watch(progress=stop))
    with Run(tmp_path / "two", {}) as run:
        run.decide(parts=2)
    trunk = Cramped(4, until=5)
    assert judged("one", trunk) == judged("two", Cramped(99))
    assert trunk.failed == 1
    assert judged("never", Cramped(99))[0] != judged("one", Cramped(99))[0]


def test_without_a_checkpoint_it_begins_anew():
    assert bits(train(Cramped(4, until=5), [Supervised()], FEED, PLAN)) == expected(2)


def test_it_gives_up_where_a_part_cannot_be_smaller(tmp_path):
    with pytest.raises(BadSetting, match=r"even with 1 of a step's items at a time \(CUDA out of memory\)\. Expected"):
        train(Cramped(0, norm=False), [Mean()], FEED, PLAN)
    trunk = Cramped(1)  # a batch norm has nothing to learn from one item
    with Run(tmp_path / "run", {}) as run, pytest.raises(BadSetting, match="even with 2 of a step's items"):
        train(trunk, [Supervised()], FEED, PLAN, run)
    assert trunk.failed == 3  # 8, 4, 2 items
    assert twice(3, 5, "").value == 5


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(Cramped(1, RuntimeError("shapes do not fit")), [Supervised()], FEED, PLAN)
    assert ran_out(ValueError("out of memory")) is None
    assert ran_out(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))


def test_pace_and_rate_are_found_all_the_same():
    assert 0 < pace(lambda: Cramped(4), [Supervised()], FEED, PLAN, 0.01) < 1
    found = [
        find_rate(lambda room=room: Cramped(room), [Supervised()], FEED, dataclasses.replace(PLAN, parts=parts))
        for room, parts in ((4, 1), (99, 2))
    ]
    assert found[0] == found[1]


WORK = """
    import json, sys
    from pathlib import Path
    import torch
    from topwork import processes
    from topwork.adaptation.loop import train
    from topwork.store.runs import Run
    from topwork.types import Watch

    sys.path.insert(0, sys.argv[1])
    from test_parts import FEED, PLAN, Cramped, Mean

    processes.together()
    torch.set_num_threads(1)
    r, said = processes.rank(), []
    trunk = Cramped(2 if r else 99, until=int(sys.argv[3]))
    trunk.layers[3].p = 0.0
    run = Run(Path(sys.argv[2]), {}) if r == 0 else None
    try:
        model = train(trunk, [Mean()], FEED, PLAN, run, Watch(say=said.append))
    except Exception as error:
        said, model = [type(error).__name__, str(error)], trunk
    values = [v for t in model.state_dict().values() for v in t.flatten().tolist()]
    print(json.dumps([r, trunk.failed, said, run.decided if run else {}, values]))
"""


def pair(tmp_path, until):
    (tmp_path / "work.py").write_text(textwrap.dedent(WORK))
    here = os.path.dirname(__file__)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "work.py")]
    env = {**os.environ, "TOPWORK_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words, here, str(tmp_path / "run"), str(until)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return sorted(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.slow
def test_several_processes_go_to_smaller_parts_together(tmp_path):
    first, second = pair(tmp_path, 0)
    assert (first[1], second[1]) == (0, 1)  # four items of each did not fit into the second
    assert first[2][0].startswith("pretrain, parts of a step 2: memory ran out with 1 (CUDA out of memory)")
    assert first[3] == {"parts": 2}
    alone = Cramped(99)
    alone.layers[3].p = 0.0
    model = train(alone, [Mean()], FEED, dataclasses.replace(PLAN, parts=2))
    expected = [v for t in model.state_dict().values() for v in t.flatten().tolist()]
    assert first[4] == second[4]
    assert first[4] == pytest.approx(expected, abs=2e-4)


@pytest.mark.slow
def test_one_of_several_that_runs_out_late_ends_all(tmp_path):
    first, second = pair(tmp_path, 4)
    assert second[2][0] == "BadSetting"
    assert "in one of 2 processes at step 3 (CUDA out of memory). Run it again with" in second[2][1]
    assert first[2][0] == "ProcessLost"


REAL = """
    import resource
    import numpy as np
    import torch
    from torch import nn
    from topwork.adaptation.feed import Feed
    from topwork.adaptation.loop import train
    from topwork.adaptation.plan import Plan
    from topwork.adaptation.pretraining.supervised import Supervised
    from topwork.types import Watch

    torch.set_num_threads(1)
    N, S, D = 64, 48, 128
    X = np.random.default_rng(0).integers(0, 256, (N, S, S, 3), dtype=np.uint8)
    feed = Feed(lambda rows, _: X[rows], np.arange(N) % 3, S, classes=(3,))
    layers = [nn.Conv2d(3, D, 1), nn.ReLU(), nn.Conv2d(D, D, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    trunk = nn.Sequential(*layers)  # 75 MB of activations a layer
    train(trunk, [Supervised()], feed, Plan(steps=1, batch=4))
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 160 * 2**20,) * 2)
    train(trunk, [Supervised()], feed, Plan(steps=1, batch=64), watch=Watch(say=print))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on memory is Linux's")
def test_a_processor_that_really_runs_out_of_memory(tmp_path):
    env = {**os.environ, "TOPWORK_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", textwrap.dedent(REAL)]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("pretrain, parts of a step 2: memory ran out with 1 (DefaultCPUAllocator: can't allocate")
    assert last.startswith("pretrain, step 1 of 1: cross_entropy ")
