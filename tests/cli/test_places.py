"""--cache, --encrypt and --key-file: they hold for one command, and passwords are told nowhere."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from topwork import settings
from topwork.cli import app
from topwork.errors import BadSetting
from topwork.store.database import command_of

SECRET = "hunter2-and-more"
NAMES = ("TOPWORK_CACHE", "TOPWORK_ENCRYPT", "TOPWORK_KEY_FILE")


@pytest.fixture
def server(tmp_path):
    from ..redis_server import RedisServer

    server = RedisServer(tmp_path / "redis", "--requirepass", SECRET)
    yield server
    server.kill()


def topwork(*words):
    command = [sys.executable, "-m", "topwork", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TOPWORK_THREADS": "1"})


def test_a_server_from_the_command_line(server, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE_FOLDER", str(tmp_path / "beside"))
    url = server.url(user=f":{SECRET}@")
    fitted = topwork("fit", photos, "--steps", "majority", "--cache", url, "--out", tmp_path / "model")
    assert fitted.returncode == 0, fitted.stderr
    run = CliRunner()
    told = run.invoke(app, ["cache", "info", "--cache", url, "--json"])
    facts = json.loads(told.stdout)
    assert facts["folder"] == server.url(user="***@")
    assert sum(part["entries"] for part in facts["namespaces"].values()) >= 60
    shown = run.invoke(app, ["cache", "info", "--cache", url])
    assert f"beside it {tmp_path / 'beside'}" in shown.stdout
    for said in (fitted.stdout, fitted.stderr, told.stdout, shown.stdout):
        assert SECRET not in said
    for path in (tmp_path / "model").iterdir():
        assert SECRET.encode() not in path.read_bytes()
    assert "--cache redis://***@" in json.loads((tmp_path / "model" / "report.json").read_bytes())["command"]
    cleared = run.invoke(app, ["cache", "clear", "--cache", url])
    assert cleared.stdout.startswith("Cleared everything in redis://***@")
    assert server.client.keys() == []


def test_an_address_that_is_none_ends_it_before_work_begins(photos, tmp_path):
    from ..redis_server import free_port

    refused = topwork("fit", photos, "--cache", f"redis://:{SECRET}@127.0.0.1:{free_port()}/0", "--out", tmp_path / "m")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "Connection refused" in refused.stderr
    assert SECRET not in refused.stderr


def test_they_hold_while_the_command_runs(tmp_path):
    before = {name: os.environ.get(name) for name in NAMES}
    run = CliRunner()
    assert run.invoke(app, ["key", "new", str(tmp_path / "key")]).exit_code == 0
    here = ["--cache", str(tmp_path / "there"), "--encrypt", "--key-file", str(tmp_path / "key")]
    told = json.loads(run.invoke(app, ["cache", "info", "--json", *here]).stdout)
    assert told["folder"] == str(tmp_path / "there")
    assert len(told["encrypted"]) == 16
    assert {name: os.environ.get(name) for name in NAMES} == before
    with pytest.raises(BadSetting), settings.using(tmp_path, True, tmp_path / "key"):
        settings.check_plain("Something is written")
    assert {name: os.environ.get(name) for name in NAMES} == before
    settings.check_plain("Something is written")


def test_a_command_line_in_a_report_has_no_password():
    words = ["topwork", "fit", "x", "--cache", f"redis://u:{SECRET}/@h:1/0", f"--cache=rediss://h/0?password={SECRET}"]
    assert SECRET not in command_of(words)
