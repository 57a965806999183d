"""Several processes as one: free when alone, and two of them that agree, share, fail and miss each other."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from topwork import processes, settings
from topwork.errors import BadSetting
from topwork.store import locks

ONE = """
    import sys
    from topwork import processes
    processes.together()
    with processes.first(), processes.alone():
        processes.barrier()
    assert processes.decided(lambda: (1, 2)) == (1, 2)
    assert processes.agreed(True, False) == (True, False)
    assert processes.gathered({"a": 1}) == [{"a": 1}]
    assert (processes.rank(), processes.count(), processes.beside()) == (0, 1, 1)
    assert "torch" not in sys.modules
"""


def python(code, **env):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def pair(code):
    """The same code in two processes that are told of each other, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [python(code, RANK=str(r), LOCAL_RANK=str(r), TOPWORK_DEVICE="cpu", **common) for r in range(2)]
    return [(p.returncode, out, err) for p in both for out, err in [p.communicate(timeout=120)]]


def test_alone_it_is_free_and_needs_no_torch():
    done = python(ONE)
    assert done.communicate()[1] == ""
    assert done.returncode == 0


@pytest.mark.parametrize("named", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "0"}, {}])
def test_a_world_without_its_address_is_not_meant(monkeypatch, named):
    for name in processes.NAMED:
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    assert processes.started() == 1


def test_a_sharded_model_is_refused_before_work(monkeypatch):
    for name in processes.NAMED:
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(BadSetting, match="accelerate is set to FSDP"):
        processes.together()
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(BadSetting, match="WORLD_SIZE='many'"):
        processes.started()


def test_processes_on_one_machine_share_its_threads(monkeypatch):
    monkeypatch.delenv("TOPWORK_THREADS", raising=False)
    monkeypatch.setattr(settings, "_cgroup_cpus", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert settings.threads().value == 8
    monkeypatch.setattr(processes._us, "local", 3)
    assert settings.threads().value == 2
    assert "shared by 3 processes" in settings.threads().reason


def test_a_lock_is_held_by_one(monkeypatch, tmp_path):
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path))
    seen = []

    def work(seconds):
        with locks.held("x") as waited:
            seen.append((waited, "in"))
            time.sleep(seconds)
            seen.append((waited, "out"))

    first = threading.Thread(target=work, args=(0.3,))
    first.start()
    time.sleep(0.1)
    with locks.held("another") as waited:
        assert not waited
    work(0)
    first.join()
    assert seen == [(False, "in"), (False, "out"), (True, "in"), (True, "out")]


def test_without_a_folder_for_locks_nobody_waits(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "file"))
    with locks.held("x") as waited:
        assert not waited


TWO = """
    import json, sys, time
    import torch, torch.nn.functional as F
    from topwork import processes
    from topwork.errors import BadData, ProcessLost, TopworkError
    from topwork.nn import shared_norm

    processes.together()
    r, found = processes.rank(), {}
    found["who"] = [r, processes.count(), processes.beside()]
    found["decided"] = processes.decided(lambda: {"from": r, "inf": float("inf")})["from"]
    try:
        processes.decided(lambda: (_ for _ in ()).throw(BadData(f"said by {r}")))
    except BadData as error:
        found["error"] = str(error)
    found["gathered"] = processes.gathered({"me": r, "long": "x" * r * 10})
    found["agreed"] = processes.agreed(r == 1, False)
    found["received"] = processes.received({"a": torch.arange(3)} if r == 0 else None)["a"].tolist()
    mine = {"w": torch.full((2, 2), float(r))}
    processes.alike(mine)
    found["alike"] = mine["w"].sum().item()
    with processes.first():
        time.sleep(0.3 * (1 - r))
        found["turn"] = time.time()
    with processes.alone():
        found["alone"] = [processes.rank(), processes.count(), processes.decided(lambda: r)]

    g = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((7, 3, 5, 2), (3,), (3,)))
    weigh = torch.randn(x.shape, generator=g, dtype=torch.float64)

    def step(x, weigh, norm):
        x, ps = x.clone().requires_grad_(), [w.clone().requires_grad_(), b.clone().requires_grad_()]
        mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        y = F.batch_norm(x, mean, var, *ps, True, 0.1, 1e-5)
        (y.pow(3) * weigh).sum().backward()
        return y.detach(), x.grad, mean, var, ps[0].grad

    whole = step(x, weigh, None)
    own = slice(0, 4) if r == 0 else slice(4, 7)
    with shared_norm.over_processes():
        y, grad, mean, var, wgrad = step(x[own], weigh[own], None)
    torch.distributed.all_reduce(wgrad)
    pairs = ((y, whole[0][own]), (grad, whole[1][own]), (mean, whole[2]), (var, whole[3]), (wgrad, whole[4]))
    found["norm"] = max(float((a - b).abs().max()) for a, b in pairs)
    print(json.dumps(found))
    sys.stdout.flush()
    if r:
        import os
        os._exit(3)
    try:
        processes.barrier()
    except ProcessLost as error:
        assert isinstance(error, TopworkError)
        print(error)
"""


@pytest.mark.slow
def test_two_processes_agree_share_and_notice_a_loss():
    pytest.importorskip("accelerate")
    (code, out, err), (other, out2, err2) = pair(TWO)
    assert (code, other) == (0, 3), err + err2
    first, lost = out.strip().splitlines()
    a, b = json.loads(first), json.loads(out2)
    assert lost == "Another process of this run has ended or cannot be reached; what it said tells why"
    assert (a["who"], b["who"]) == ([0, 2, 2], [1, 2, 2])
    assert a["turn"] < b["turn"]
    assert (a["alone"], b["alone"]) == ([0, 1, 0], [0, 1, 1])
    for found in (a, b):
        assert found["decided"] == 0
        assert found["error"] == "said by 0"
        assert found["gathered"] == [{"me": 0, "long": ""}, {"me": 1, "long": "x" * 10}]
        assert found["agreed"] == [True, False]
        assert found["received"] == [0, 1, 2]
        assert found["alike"] == 0
        assert found["norm"] < 1e-9
