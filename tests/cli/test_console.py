"""The live line: step, loss, time left; nothing when it shall be quiet."""

import io
import sys

import pytest
from rich.console import Console

from topwork.cli import console
from topwork.types import Watch


def test_losses_are_short():
    numbers = {"rate": 0.001, "task": 0.41249, "l2_sp": 0.0031, "bss": 1.0, "more": 2.0}
    assert console.losses(numbers) == "task 0.412 l2_sp 0.003 bss 1.000"


def test_a_terminal_shows_step_and_loss_in_one_line(monkeypatch):
    shown = io.StringIO()
    plain = Console
    monkeypatch.setattr(
        "rich.console.Console", lambda **_: plain(file=shown, force_terminal=True, width=120, highlight=False)
    )
    with console.watching() as watch:
        watch.track("unknown", 0, {"task": 9.0})  # before its first step
        watch.progress("lp_ft [fold] 1", 1, 40)
        watch.track("lp_ft [fold] 1", 0, {"rate": 0.1, "task": 0.5})
        watch.progress("lp_ft [fold] 1", 2, 40)
    text = shown.getvalue()
    assert "lp_ft [fold] 1" in text
    assert "2/40" in text
    assert "task 0.500" in text


@pytest.mark.parametrize("quiet", [True, False])
def test_no_terminal_no_bar(monkeypatch, capsys, quiet):
    with console.watching(quiet) as watch:
        watch.progress("lp_ft", 1, 40)
        watch.track("lp_ft", 0, {"task": 0.5})
        watch.say("lp_ft: done")
    err = capsys.readouterr().err
    assert err == ("" if quiet else "lp_ft: done\n")
    if quiet:
        assert watch == Watch()
    assert sys.stderr is not None
