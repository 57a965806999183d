"""The steps of a tuned training one by one, for tests."""

from topwork import finetune, ladder, planning, verbs
from topwork.adaptation.graft import techniques
from topwork.finetune import pace
from topwork.ground import divide
from topwork.terms import Terms
from topwork.types import Watch


def climbed(data, spec, backbone, run=None, **more):
    """The ground, and the way up over the probe to one tuned step."""
    ground = divide(verbs.inspect(verbs.read(data)).dataset)
    plans = planning.plan(["probe", spec], backbone)
    return ground, ladder.climb(ground, plans, None, deadline=float("inf"), watch=Watch(), run=run, **more)


def bench(data, spec, backbone, run=None, engine="torch"):
    """What the trainings of a tuned step share; features by an engine that is named, not whichever was faster."""
    ground = divide(verbs.inspect(verbs.read(data)).dataset)
    plans = planning.plan("probe", backbone)
    rung = ladder.climb(ground, plans, None, deadline=float("inf"), watch=Watch(), engine="onnxruntime").best
    start = finetune.Start(rung.backbone, rung.x, rung.probe)
    terms = Terms(None, float("inf"), Watch(), run, extraction={"engine": engine})
    return finetune.Bench.of(ground, spec, techniques(spec), start, terms)


def on_everything(b):
    """Backbone, head and proofs of a training on all items."""
    return b.shipped(b.train(pace.decide(b, float("inf"), 1).plan, b.ground.train, "on everything"))
