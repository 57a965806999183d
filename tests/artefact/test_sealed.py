"""An encrypted model: opened with its key alone, and what is done to its files is noticed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from topwork import settings
from topwork.artefact import bundle
from topwork.artefact.model import load
from topwork.artefact.proof import prove
from topwork.errors import BadSetting, BadWeights, StoreError
from topwork.store.keys import Key, Scrypt

from ._texts import write

KEYS = [Key(bytes([i]) * 32) for i in range(3)]
TEXTS = ["a good film", "the film was awful", "not bad !"]
SECRETS = [b"negative", b"positive", b"awful", b"tiny", b"README", b"labels", b"reader"]


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("TOPWORK_KEY", KEYS[0].secret.hex())


def made(folder, monkeypatch):
    """The texts' small model, encrypted."""
    monkeypatch.setenv("TOPWORK_ENCRYPT", "1")
    write(folder)
    monkeypatch.delenv("TOPWORK_ENCRYPT")
    return folder


@pytest.fixture
def folder(tmp_path, key, monkeypatch):
    return made(tmp_path / "model", monkeypatch)


@pytest.fixture
def plain(tmp_path):
    write(tmp_path / "plain")
    return load(tmp_path / "plain")


def test_it_answers_as_the_plain_one_does(folder, plain):
    model = load(folder)
    assert [p.to_json() for p in model.predict(TEXTS)] == [p.to_json() for p in plain.predict(TEXTS)]
    assert dict(model.manifest) == {**plain.manifest, "name": model.manifest["name"]}


def test_nothing_but_that_it_is_encrypted_can_be_read(folder):
    assert sorted(path.name for path in folder.iterdir() if not path.name.endswith(".sealed")) == ["model.json"]
    facts = json.loads((folder / "model.json").read_bytes())
    assert set(facts) == {"format", "topwork", "encrypted"}
    assert set(facts["encrypted"]) == {"cipher", "key", "model"}
    assert facts["encrypted"]["key"] == KEYS[0].id
    whole = b"".join(path.read_bytes() for path in folder.iterdir())
    assert not [secret for secret in SECRETS if secret in whole]
    assert KEYS[0].secret not in whole


def test_without_the_key_it_is_one_line(folder, monkeypatch):
    monkeypatch.setenv("TOPWORK_KEY", KEYS[1].secret.hex())
    expected = f"encrypted with another key .{KEYS[0].id}; this one is {KEYS[1].id}.. Name the right one by --key-file"
    with pytest.raises(BadSetting, match=expected):
        load(folder)
    monkeypatch.setenv("TOPWORK_KEY", "passphrase: correct horse battery")
    with pytest.raises(BadSetting, match=r"encrypted with a key .*, not a passphrase"):
        load(folder)
    monkeypatch.delenv("TOPWORK_KEY")
    with pytest.raises(BadSetting, match=r"is encrypted. Encryption needs a key: --key-file FILE"):
        load(folder)


def test_a_model_that_is_open_stays_open(folder, monkeypatch, tmp_path):
    (tmp_path / "key").write_text(KEYS[0].secret.hex())
    monkeypatch.delenv("TOPWORK_KEY")
    with settings.using(key_file=tmp_path / "key"):
        model = load(folder)
    assert model.predict(TEXTS[0]).label in model.labels
    assert "TOPWORK_KEY_FILE" not in os.environ


def test_a_passphrase_and_its_salt(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPWORK_KEY", "passphrase: correct horse battery")
    folder = made(tmp_path / "model", monkeypatch)
    header = json.loads((folder / "model.json").read_bytes())["encrypted"]
    assert Scrypt.from_json(header["scrypt"]).n == 2**17
    assert load(folder).predict(TEXTS[0])
    monkeypatch.setenv("TOPWORK_KEY", "passphrase: correct horse batterie")
    with pytest.raises(BadSetting, match="another passphrase"):
        load(folder)
    monkeypatch.setenv("TOPWORK_KEY", KEYS[0].secret.hex())
    with pytest.raises(BadSetting, match="encrypted with a passphrase, and the key that was given is none"):
        load(folder)
    facts = json.loads((folder / "model.json").read_bytes())
    facts["encrypted"]["scrypt"]["n"] = 2**40  # would take all memory
    (folder / "model.json").write_text(json.dumps(facts))
    with pytest.raises(StoreError, match="is damaged: costs of scrypt"):
        load(folder)


def test_changed_cut_and_swapped_files_are_noticed(folder, tmp_path, monkeypatch):
    other = made(tmp_path / "other", monkeypatch)  # with the same key
    for name in ("model.json", "model.onnx", "model.safetensors", "reader.json"):
        path = folder / f"{name}.sealed"
        good = path.read_bytes()
        elsewhere = folder / ("model.onnx.sealed" if name != "model.onnx" else "model.safetensors.sealed")
        for bad in (good[:-1], good[:40] + bytes([good[40] ^ 1]) + good[41:], elsewhere.read_bytes(),
                    (other / path.name).read_bytes(), b""):  # fmt: skip
            path.write_bytes(bad)
            with pytest.raises(BadWeights, match=f"{name}.sealed does not open: "):
                load(folder)
        path.unlink()
        with pytest.raises(BadWeights, match="missing"):
            load(folder)
        path.write_bytes(good)
    assert load(folder)


def test_an_earlier_report_does_not_open_in_a_later_model(folder, tmp_path, monkeypatch):
    bundle.add(folder, {"report.json": b'{"accuracy": 0.99}'})
    earlier = (folder / "report.json.sealed").read_bytes()
    assert load(folder).report == {"accuracy": 0.99}
    shutil.rmtree(folder)
    made(folder, monkeypatch)
    bundle.add(folder, {"report.json": b'{"accuracy": 0.12}'})
    (folder / "report.json.sealed").write_bytes(earlier)
    with pytest.raises(BadWeights, match=r"report.json.sealed does not open"):
        _ = load(folder).report


@pytest.mark.parametrize("change", [{"key": "00"}, {"model": "zz"}, {"cipher": "ROT13"}, {"model": None}])
def test_a_changed_header_is_noticed(folder, change):
    facts = json.loads((folder / "model.json").read_bytes())
    facts["encrypted"] |= change
    (folder / "model.json").write_text(json.dumps(facts))
    with pytest.raises((BadSetting, StoreError)):
        load(folder)


def test_another_models_header_opens_nothing(folder, tmp_path, monkeypatch):
    other = made(tmp_path / "other", monkeypatch)
    shutil.copy(other / "model.json", folder / "model.json")
    with pytest.raises(BadWeights, match="does not open"):
        load(folder)


def test_it_is_proven_in_a_new_process(folder, plain, monkeypatch):
    proof = prove(folder, TEXTS, plain.probabilities(TEXTS))
    assert proof.items == 3
    assert proof.max_difference == 0


def test_decrypt_gives_the_plain_folder(folder, tmp_path, plain):
    bundle.add(folder, {"report.html": b"<p>thumbnails</p>"})
    names = bundle.decrypt(folder, tmp_path / "out")
    assert "report.html" in names
    assert (tmp_path / "out" / "report.html").read_bytes() == b"<p>thumbnails</p>"
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (Path(plain.folder) / "model.onnx").read_bytes()
    assert [p.probability for p in load(tmp_path / "out").predict(TEXTS)] == [
        p.probability for p in plain.predict(TEXTS)
    ]
    with pytest.raises(StoreError, match="is not encrypted"):
        bundle.decrypt(tmp_path / "out", tmp_path / "again")
    with pytest.raises(StoreError, match="is the model itself"):
        bundle.decrypt(folder, folder)
