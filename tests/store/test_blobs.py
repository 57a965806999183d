import pytest
from typer.testing import CliRunner

from topwork.cli import app
from topwork.errors import BadSetting, StoreError
from topwork.store import blobs


def test_kept_once_by_content(monkeypatch):
    path = blobs.keep(b"a picture", ".png")
    assert path.endswith(".png")
    with open(path, "rb") as file:
        assert file.read() == b"a picture"
    assert blobs.keep(b"a picture", ".png") == path
    assert blobs.keep(b"another", ".jpg") != path
    assert blobs.info() == {"files": 2, "bytes": 16}
    with open(path, "wb") as file:
        file.write(b"cut")  # by a full disk, or a crash of the machine
    assert blobs.keep(b"a picture", ".png") == path
    assert blobs.info()["bytes"] == 16
    assert "blobs: 2 images of databases" in CliRunner().invoke(app, ["cache", "info"]).stdout
    CliRunner().invoke(app, ["cache", "clear", "blobs"])
    assert blobs.info() == {"files": 0, "bytes": 0}
    monkeypatch.setenv("TOPWORK_ENCRYPT", "1")
    with pytest.raises(BadSetting, match="which --encrypt forbids"):
        blobs.keep(b"a picture", ".png")


def test_no_place(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="cannot be written"):
        blobs.keep(b"a picture", ".png")
