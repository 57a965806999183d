"""The house stands as planned: imports go down only, the light doors stay light, the public list is pinned."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import topwork

HOUSE = Path(topwork.__file__).parent
FLOORS = [
    {"types", "errors"},
    {"settings", "plugins", "store", "processes"},
    {"nn"},
    {"modalities", "tasks"},
    {"sources", "data", "backbones", "features", "adaptation", "evaluation", "artefact", "ranking"},
    {
        "verbs",
        "wishes",
        "saving",
        "fitting",
        "asking",
        "account",
        "ladder",
        "planning",
        "rung",
        "terms",
        "finetune",
        "live",
        "search",
        "source_steps",
        "extending",
        "mirrors",
        "transfer",
        "ground",
        "pretraining",
        "choosing",
        "judging",
        "shortlist",
        "sweeping",
        "care",
        "inspection",
        "redacting",
        "writing_back",
        "growing",
    },
    {"__init__", "__main__", "cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
OPEN = {0, 1, 2, 5, 6}  # floors whose rooms may know their neighbours
HEAVY = (
    "torch",
    "timm",
    "transformers",
    "sklearn",
    "matplotlib",
    "torchvision",
    "accelerate",
    "scipy",
    "pyarrow",
    "onnx",
)


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "topwork":
            inner = node.module.split(".")[1:]
            rooms |= {inner[0]} if inner else {a.name if a.name in FLOOR else "__init__" for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            rooms.add(room_of(path))
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("topwork.")}
    return rooms


FILES = sorted(HOUSE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOUSE)))
def test_imports_go_down_only(path):
    room = room_of(path)
    assert room in FLOOR, f"{room} is on no floor: add it to FLOORS and to docs/architecture.md"
    for other in imported_rooms(path) - {room}:
        if room in ("__init__", "__main__"):
            continue
        below = FLOOR[other] < FLOOR[room]
        neighbours = FLOOR[other] == FLOOR[room] and FLOOR[room] in OPEN
        assert below or neighbours, f"{path.relative_to(HOUSE)} imports topwork.{other}"


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('\\n'.join(sys.modules))"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_and_help_cost_nothing():
    helped = "from typer.testing import CliRunner\nfrom topwork.cli import app\nCliRunner().invoke(app, ['--help'])"
    for code in ("import topwork", helped):
        assert not loaded_by(code) & {*HEAVY, "numpy", "onnxruntime", "PIL"}


def test_public_list_is_pinned():
    assert sorted(topwork.__all__) == [
        "clean", "errors", "evaluate", "extend", "extract", "fit", "inspect", "load", "predict", "pretrain", "rank",
        "read", "redact", "split", "sweep",
    ]  # fmt: skip
    assert all(getattr(topwork, name) for name in topwork.__all__)
    for name in set(topwork.__all__) - {"errors"}:  # a room of the same name would hide the verb once it is imported
        assert not (HOUSE / name).exists()


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = topwork.train


def test_every_room_states_its_contract():
    for init in HOUSE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), init
