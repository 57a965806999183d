"""Every file in the rooms that techniques come from: one contract, each named alone after plain fine-tuning."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from topwork import plugins
from topwork.adaptation import Technique
from topwork.adaptation.graft import ROOMS, TUNING, Grafted, Scope, Tune
from topwork.errors import BadSetting

from ..adaptation._tuned import CLASSES, FEATURES, batch, facts, images, step, trunk, tune

pytestmark = pytest.mark.usefixtures("one_thread")

LASTING = (TUNING, "adaptation.surgery")  # what they put in may stay in what is shipped
CASES = [(room, name) for room in ROOMS for name in plugins.names(room)]
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


@pytest.fixture(params=CASES, ids=[f"{room.rpartition('.')[2]}.{name}" for room, name in CASES])
def case(request):
    return request.param


def goal_of(case) -> str:
    """Classes where it can learn them, else numbers."""
    return plugins.find(*case).goals[0]


def begun(case, goal=None, **known) -> tuple[Tune, Grafted]:
    """A method and its model in training mode."""
    room, name = case
    technique, goal = plugins.find(room, name)(), goal or goal_of(case)
    classes = 1 if goal == "numbers" else CLASSES
    method = tune(first=technique, classes=classes) if room == TUNING else tune(technique, classes=classes)
    if goal == "numbers":
        known = {"numeric": True, "classes": (1,), "counts": ()} | known
    return method, method.prepare(trunk(), facts(**known)).train()


def items(case, goal=None, **more):
    """A batch of what it can learn."""
    goal = goal or goal_of(case)
    numbers = torch.randn(12, generator=torch.Generator().manual_seed(9))
    return batch(numbers if goal == "numbers" else None, **more)


def started(case, goal=None, **known):
    """The same; what needs something that this small model has not is left out, and says what."""
    try:
        return begun(case, goal, **known)
    except BadSetting as error:
        pytest.skip(f"{case[1]}: {error}")


def told(method, model, b):
    return {name: value.item() for name, value in method.loss(model, b).items()}


def traces(model):
    """What could be left behind: names, kinds of modules, hooks, methods that were put in place of others."""
    return {
        name: (type(module), *(len(getattr(module, hooks)) for hooks in HOOKS), "forward" in vars(module))
        for name, module in model.named_modules()
    }


def test_nearly_all_of_them_are_tested():
    missing = {}
    for room, name in CASES:
        try:
            begun((room, name))
        except BadSetting as error:
            missing[room, name] = str(error)
    assert len(missing) <= 4, missing
    for room in {room for room, _ in CASES}:
        assert any((room, name) not in missing for name in plugins.names(room)), missing


def test_it_is_a_frozen_technique(case):
    kind = plugins.find(*case)
    assert dataclasses.is_dataclass(kind)
    assert issubclass(kind, Technique)
    assert issubclass(kind, Scope) == (case[0] == TUNING)
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().anything = 1
    assert hash(kind()) == hash(kind())  # options are literals


def test_terms_are_finite_scalars_that_reach_what_learns(case):
    method, model = started(case)
    terms = method.loss(model, items(case))
    assert "task" in terms
    assert all(value.shape == () and torch.isfinite(value) for value in terms.values())
    sum(terms.values()).backward()
    for part in (model.trunk, model.head):
        slopes = [p.grad for p in part.parameters() if p.requires_grad and p.grad is not None]
        assert slopes
        assert all(torch.isfinite(g).all() for g in slopes)
        assert max(float(g.abs().max()) for g in slopes) > 0


def test_all_chance_comes_from_the_batch(case):
    """The same batch gives the same bits, whatever torch's own generator was before."""
    told_twice = []
    for seed in (1, 2):
        method, model = started(case)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        told_twice.append([step(method, model, items(case, step=i, seed=i)) for i in range(2)])
        assert torch.equal(torch.get_rng_state(), before)
    assert told_twice[0] == told_twice[1]


def test_nothing_is_remembered_outside_the_tensors(case):
    """A model that is made anew and given the tensors goes on as the old one would."""
    from topwork.nn.ema import tensors_of

    method, old = started(case)
    for i in range(2):
        step(method, old, items(case, step=i, seed=i))
    torch.manual_seed(77)
    again, new = started(case)
    with torch.no_grad():
        for name, tensor in tensors_of(new).items():
            tensor.copy_(tensors_of(old)[name])
    assert tensors_of(new).keys() == tensors_of(old).keys()
    b = [items(case, step=2, seed=2) for _ in range(2)]
    assert told(method, old, b[0]) == told(again, new, b[1])


def test_a_copy_goes_its_own_way(case):
    method, model = started(case)
    step(method, model, items(case))
    twin = copy.deepcopy(model)
    first = told(method, twin, items(case, step=1))
    for i in range(1, 3):
        step(method, twin, items(case, step=i))
    assert told(method, model, items(case, step=1)) == pytest.approx(first, rel=1e-6)


def test_nothing_is_left_behind(case):
    method, model = started(case)
    _, bare = begun((TUNING, "full"), goal_of(case))
    for i in range(2):
        step(method, model, items(case, step=i))
    left = method.finish(model)
    assert isinstance(left, Grafted)
    assert isinstance(left.head, nn.Linear)
    assert set(dict(left.named_children())) == {"trunk", "neck", "head"}
    names = {"trunk": list(bare.trunk.state_dict()), "all": list(bare.state_dict())}
    if case[0] in LASTING:
        assert set(left.trunk.state_dict()) >= set(names["trunk"])
    else:
        assert list(left.state_dict()) == names["all"]
        assert traces(left) == traces(bare)
    left.eval()
    with torch.no_grad():
        answer, again = left(images()), copy.deepcopy(left)(images())
    assert answer.logits.shape == (12, 1 if goal_of(case) == "numbers" else CLASSES)
    assert answer.features.shape[0] == 12
    if case[0] != "adaptation.surgery":
        assert answer.features.shape == (12, FEATURES)
    assert torch.equal(answer.logits, again.logits)


def test_numbers_are_learnt_too(case):
    """What can learn numbers does so in two steps; all else says so before the training."""
    if "numbers" not in plugins.find(*case).goals:
        with pytest.raises(BadSetting, match="is for classes, and these targets are numbers"):
            begun(case, "numbers")
        return
    method, model = started(case, "numbers")
    for i in range(2):
        terms = step(method, model, items(case, "numbers", step=i, seed=i), rate=0.01)
        assert all(value == value and abs(value) < float("inf") for value in terms.values())
    with torch.no_grad():
        assert method.finish(model).eval()(images()).logits.shape == (12, 1)


def test_several_labels_work_or_are_refused_before_the_training(case):
    try:
        method, model = begun(case, "classes", multilabel=True, counts=(7, 5, 6))
    except BadSetting:
        return
    y = torch.randint(0, 2, (12, CLASSES), generator=torch.Generator().manual_seed(0)).float()
    terms = step(method, model, batch(y, multilabel=True))
    assert all(value == value and abs(value) < float("inf") for value in terms.values())


def test_shares_are_targets_too(case):
    """A class as a share of 1 costs what the class costs."""
    if "classes" not in plugins.find(*case).goals:
        return
    method, model = started(case)
    other, twin = started(case)
    hard, soft = batch(), batch(nn.functional.one_hot(torch.arange(12) % CLASSES, CLASSES).float())
    assert told(method, model, hard) == pytest.approx(told(other, twin, soft), rel=1e-5)
