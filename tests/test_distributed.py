"""One fit by two processes is the fit of one: same features, same training at the same global batch, one artefact."""

import json
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("accelerate")

import topwork as tw  # noqa: E402
from topwork.adaptation import loop  # noqa: E402
from topwork.adaptation.feed import Feed, Setup  # noqa: E402
from topwork.adaptation.graft import Scope, Tune, techniques  # noqa: E402
from topwork.adaptation.plan import Plan  # noqa: E402

from .conftest import draw_stripes  # noqa: E402

S = 32
SPEC = "lp_ft(epochs=2, rate=1e-2, batch=15) + view('plain')"


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Two classes, stripes that lean left or right; one image is there twice."""
    folder = tmp_path_factory.mktemp("data") / "stripes"
    draw_stripes(folder, {"left": 0.785, "right": -0.785}, 30, noise=40)
    (folder / "left" / "twice.png").write_bytes((folder / "left" / "000.png").read_bytes())
    return folder


def launched(words, cache, count=2, seconds=300):
    """`python WORDS` in so many processes; exit code, stdout, stderr."""
    many = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    env = {**os.environ, "TOPWORK_CACHE": str(cache), "TOPWORK_THREADS": "1", "OMP_NUM_THREADS": "1"}
    env |= {"TOPWORK_DEVICE": "cpu", "TOPWORK_CACHE_GB": "1"}
    done = subprocess.run([sys.executable, *many, *words], env=env, capture_output=True, text=True, timeout=seconds)
    return done.returncode, done.stdout, done.stderr


def script(folder, code):
    path = folder / "work.py"
    path.write_text(textwrap.dedent(code))
    return str(path)


WORK = """
    import json, sys
    import numpy as np
    from topwork import finetune, ladder, planning, processes, verbs
    from topwork.adaptation.graft import techniques
    from topwork.backbones import find
    from topwork.features import extract as room
    from topwork.ground import divide
    from topwork.store.cache import open_cache
    from topwork.terms import Terms
    from topwork.types import Watch

    processes.together()
    data, backbone, out, *specs = sys.argv[1:]
    passed, real = [], room._passes

    def passes(loader, runner, workers, new, size, **more):
        new = [list(part) for part in new]
        passed.extend(content for part in new for content in part)
        return real(loader, runner, workers, new, size, **more)

    room._passes = passes
    ground = divide(verbs.inspect(verbs.read(data)).dataset)
    plans = planning.plan("probe", backbone)
    found = ladder.climb(
        ground, plans, open_cache(), deadline=float("inf"), watch=Watch(), engine="onnxruntime"
    ).best
    arrays = {"x": found.features.x, "rows": found.features.rows, "computed": found.features.computed}
    start = finetune.Start(found.backbone, found.x, found.probe)
    inf = float("inf")
    terms = Terms(None, inf, Watch(), extraction={"engine": "onnxruntime"})
    for number, spec in enumerate(specs):
        bench = finetune.Bench.of(ground, spec, techniques(spec), start, terms)
        decided = finetune.pace.decide(bench, inf, 1)
        model = bench.train(decided.plan, ground.train[ground.folds != 0], "one").model
        arrays[f"z{number}"] = bench.logits(model, ground.train)
    every = processes.gathered(passed)
    np.savez(f"{out}/{processes.rank()}.npz", **arrays)
    if not processes.rank():
        print(json.dumps(every))
"""
SPECS = (  # batches of 15 cannot be halved; sgd, because Adam makes a large step of a small rounding
    "lp_ft(epochs=3, rate=3e-3, batch=15, optimizer='sgd', norms='frozen') + view('plain')",
    "lp_ft(epochs=2, rate=1e-3, batch=15, optimizer='sgd') + view('crop')",
    "gradual_unfreezing(epochs=2, rate=1e-3, batch=15, optimizer='sgd') + view('plain')",
    "last_stages(2, epochs=2, rate=1e-3, batch=15, optimizer='sgd', views=2) + l2_sp + view('crop')",
)


@pytest.mark.slow
def test_two_processes_compute_what_one_does(stripes, backbone, tmp_path):
    outs = []
    for count in (1, 2):
        out = tmp_path / str(count)
        out.mkdir()
        words = [script(tmp_path, WORK), str(stripes), backbone, str(out), *SPECS]
        code, said, err = launched(words, tmp_path / f"cache{count}", count)
        assert code == 0, err
        outs.append((json.loads(said.strip().splitlines()[-1]), [np.load(out / f"{r}.npz") for r in range(count)]))
    (alone, [one]), (shares, [first, second]) = outs
    assert sorted(alone[0]) == sorted(shares[0] + shares[1]) == list(range(60))  # 61 files, every content once
    assert abs(len(shares[0]) - len(shares[1])) <= 1
    assert one["computed"] == first["computed"] == 60
    for name in ("x", "rows"):
        assert np.array_equal(one[name], first[name])
    for name in first.files:
        assert np.array_equal(first[name], second[name]), name  # nobody may go another way
    for number in range(len(SPECS)):
        z, both = one[f"z{number}"], first[f"z{number}"]
        assert np.abs(z - both).max() < 2e-3 * np.abs(z).max(), SPECS[number]


JOINT = """
    import sys
    import numpy as np
    from topwork import finetune, ladder, planning, processes, source_steps, verbs
    from topwork.adaptation.graft import techniques
    from topwork.ground import divide
    from topwork.store.cache import open_cache
    from topwork.terms import Terms
    from topwork.types import Watch

    processes.together()
    data, other, backbone, out, spec = sys.argv[1:]
    inf, store, how = float("inf"), open_cache(), {"engine": "onnxruntime"}
    ground = divide(verbs.inspect(verbs.read(data)).dataset)
    with processes.first():
        sources = source_steps.gather(source_steps.read(other, "joint"), ground.dataset, store, Watch())
    rung = ladder.climb(ground, planning.plan("probe", backbone), store, deadline=inf, watch=Watch(), **how).best
    terms = Terms(store, inf, Watch(), extraction=how)
    whole, join = source_steps.Lesson(sources).joined(ground, rung.backbone, terms)
    start = finetune.Start(rung.backbone, rung.x, rung.probe)
    bench = join(finetune.Bench.of(whole, spec, techniques(spec), start, terms))
    decided = finetune.pace.decide(bench, inf, 1)
    model = bench.train(decided.plan, ground.train[ground.folds != 0], "one").model
    heads = np.concatenate([a.ravel() for head in bench.parts[-1].heads for a in head])
    arrays = {"x": rung.features.x, "heads": heads, "steps": decided.plan.steps, "own": bench.own}
    np.savez(f"{out}/{processes.rank()}.npz", z=bench.logits(model, ground.train), **arrays)
"""


@pytest.mark.slow
def test_two_processes_learn_jointly_what_one_does(stripes, backbone, tmp_path):
    other = draw_stripes(tmp_path / "other", {"flat": 0.1, "steep": 1.3, "falling": 2.5}, 12, seed=5)
    found = []
    for count in (1, 2):
        (out := tmp_path / str(count)).mkdir()
        words = [script(tmp_path, JOINT), str(stripes), str(other), backbone, str(out), SPECS[1]]
        code, _, err = launched(words, tmp_path / f"cache{count}", count)
        assert code == 0, err
        found.append([np.load(out / f"{r}.npz") for r in range(count)])
    [one], [first, second] = found
    for name in first.files:
        assert np.array_equal(first[name], second[name]), name
    for name in ("x", "heads", "steps", "own"):
        assert np.array_equal(one[name], first[name]), name
    assert np.abs(one["z"] - first["z"]).max() < 2e-3 * np.abs(one["z"]).max()


@pytest.mark.slow
def test_a_fit_by_two_processes_is_that_of_one(stripes, backbone, tmp_path):
    words = ["-m", "topwork", "fit", str(stripes), "--backbone", backbone, "--engine", "onnxruntime"]
    words += ["--steps", f"majority,probe,{SPEC}"]
    reports = []
    for count in (1, 2):
        out = tmp_path / f"model{count}"
        code, said, err = launched([*words, "--out", str(out)], tmp_path / f"cache{count}", count)
        assert code == 0, err
        assert said.count("report  ") == 1  # the first process tells
        assert err.count(" probe: accuracy") + err.count("\nprobe: accuracy") == 1
        reports.append(tw.load(out).report)
    one, two = reports
    assert [s["kept"] for s in one["steps"]] == [s["kept"] for s in two["steps"]]
    assert one["extraction"]["forward_passes"] == two["extraction"]["forward_passes"] == 60
    for name, metric in one["metrics"].items():
        assert metric["value"] == pytest.approx(two["metrics"][name]["value"], abs=0.02)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache1", "cache2", "model1", "model2"]


FAILING = """
    import sys
    from topwork import processes
    from topwork.adaptation.together import Together
    from topwork.cli import main
    from topwork.errors import BadData

    real = Together.after

    def after(self, batches):
        if processes.rank() == 1 and batches[0].step == 1:
            raise BadData("the disk of the second machine is gone")
        real(self, batches)

    Together.after = after
    main()
"""


@pytest.mark.slow
def test_one_that_fails_ends_all(stripes, backbone, tmp_path):
    words = [script(tmp_path, FAILING), "fit", str(stripes), "--backbone", backbone, "--engine", "onnxruntime"]
    began = time.monotonic()
    code, _, err = launched(
        [*words, "--steps", SPEC, "--out", str(tmp_path / "model")], tmp_path / "cache", seconds=200
    )
    assert code == 1
    assert [line for line in err.splitlines() if line.startswith("topwork:")] == [
        "topwork: the disk of the second machine is gone"
    ]
    assert not (tmp_path / "model").exists()
    assert time.monotonic() - began < 150


@pytest.mark.slow
def test_what_is_wrong_for_all_is_said_once(stripes, backbone, tmp_path):
    words = ["-m", "topwork", "fit", str(stripes), "--backbone", backbone, "--steps", "last_stages(9)"]
    code, _, err = launched([*words, "--out", str(tmp_path / "model")], tmp_path / "cache")
    assert code == 1
    assert [line for line in err.splitlines() if line.startswith("topwork:")] == [
        "topwork: last_stages(9): the backbone has 4 stages. Expected fewer, or lp_ft for all"
    ]
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize(("batch", "parts", "count"), [(15, 4, 2), (15, 1, 4), (5, 4, 3), (2, 3, 2)])
def test_a_batch_is_cut_into_shares_that_are_all_there(batch, parts, count):
    X = np.zeros((20, 8, 8, 3), np.uint8)
    feed = Feed(lambda rows, _: X[rows], np.arange(20) % 2, 8, classes=(2,))
    tune = Tune((Scope(),), np.zeros((4, 2), np.float32), np.zeros(2, np.float32))
    shown = []
    for process in range(count):
        setup = Setup(steps=3, batch=batch, parts=parts, process=process, processes=count)
        shown.append([[part[0].rows.tolist() for part in cut] for _, cut in feed.batches([tune], 0, setup)])
    whole = [cut[0][0].rows.tolist() for _, cut in feed.batches([tune], 0, Setup(steps=3, batch=batch))]
    for step in range(3):
        assert len({len(one[step]) for one in shown}) == 1  # as many parts in each, or they would wait for ever
        assert all(part for one in shown for part in one[step])
        rows = [row for one in shown for part in one[step] for row in part]
        assert sorted(rows) == sorted(whole[step])


def test_uneven_parts_make_the_step_of_the_whole_batch():
    X = np.random.default_rng(0).integers(0, 256, (20, S, S, 3), dtype=np.uint8)
    feed = Feed(lambda rows, _: X[rows], np.arange(20) % 2, S, classes=(2,))
    models = []
    for parts in (1, 4):
        torch.manual_seed(0)
        trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        tune = Tune((Scope(),), np.zeros((4, 2), np.float32), np.zeros(2, np.float32))
        plan = Plan(steps=6, batch=15, ema=0.0, optimizer="sgd", rate=0.1, parts=parts, clip=1e9)
        models.append(dict(loop.train(trunk, [tune], feed, plan).named_parameters()))
    for name, parameter in models[0].items():
        assert torch.allclose(parameter, models[1][name], atol=1e-6), name


def test_gradual_unfreezing_says_that_it_waits():
    assert Tune(techniques("gradual_unfreezing"), np.zeros((4, 2), np.float32), np.zeros(2, np.float32)).waits
    assert not Tune(techniques("lp_ft + l2_sp"), np.zeros((4, 2), np.float32), np.zeros(2, np.float32)).waits


def test_pretraining_and_sweeps_are_not_started_by_a_launcher(monkeypatch, tmp_path):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(tw.errors.BadSetting, match="trains in one process"):
        tw.pretrain(tmp_path, method="simclr", out=tmp_path / "b", steps=1)
    with pytest.raises(tw.errors.BadSetting, match="without torchrun"):
        tw.sweep([{"data": "photos"}])
