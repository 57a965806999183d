"""What is planted in the data is nowhere in what a fit leaves behind: cache, report, model; the model masks alike."""

import io
import json
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from tests.data.test_image_metadata import SECRETS, exif, jpeg
from tests.modalities.test_names import folder as names_model
from typer.testing import CliRunner

import topwork as tw
from topwork.cli import app
from topwork.errors import BadSetting

PLANTED = ("xaverl", "quietdomain", "5552671", "555 2671", "13800138000", "4111111111111111", "192.168.77.9")
WORDS = {"good": ["lovely", "brilliant", "moving", "a joy"], "bad": ["terrible", "boring", "dull", "a waste"]}


def reviews(path, n=120, planted=True):
    rng = random.Random(0)
    rows = ["text,label,created,shop"]
    for i in range(n):
        label = "good" if i % 2 else "bad"
        text = f"{rng.choice(WORDS[label])} film number {i} seen {rng.choice(['today', 'twice', 'late'])}"
        if planted and i % 4 < 2:
            text += f"; write to xaverl{i % 7}@quietdomain.org or 13800138000 or +1 415 555 2671, "
            text += "card 4111111111111111 from 192.168.77.9"
        rows.append(f'"{text}",{label},2024-{i // 28 + 1:02d}-{i % 28 + 1:02d},{"XYZ"[i % 3]}')
    path.write_text("\n".join(rows))
    return path


def every_byte(*places):
    """All files below, those inside zip files too."""
    for place in places:
        for path in [place] if place.is_file() else place.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                yield path, data
                if zipfile.is_zipfile(io.BytesIO(data)):
                    with zipfile.ZipFile(io.BytesIO(data)) as held:
                        yield from ((path, held.read(name)) for name in held.namelist())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    place, patch = tmp_path_factory.mktemp("redact"), pytest.MonkeyPatch()
    patch.setenv("TOPWORK_CACHE", str(place / "cache"))
    said = []
    from topwork.types import Watch

    model = tw.fit(
        reviews(place / "r.csv"),
        redact=True,
        steps="majority, ngrams",
        out=place / "model",
        watch=Watch(say=said.append),
    )
    yield place, model, said
    patch.undo()


def test_nothing_planted_is_left_anywhere(fitted):
    place, model, said = fitted
    held = list(every_byte(place / "model", place / "cache"))
    assert {"report.html", "model.json", "model.onnx"} <= {path.name for path, _ in held}
    assert any("cache" in str(path) for path, _ in held)
    for path, data in held:
        for secret in PLANTED:
            assert secret.encode() not in data, (path, secret)
            assert secret.encode("utf-16-le") not in data, (path, secret)
    assert any(line.startswith("redact: 60 email") or "60 email" in line for line in said)
    assert b"[EMAIL]" in (place / "model" / "report.html").read_bytes()
    assert "Texts are masked before they are read" in (place / "model" / "README.md").read_text()
    assert model.manifest["redact"] == {"how": "mask", "kinds": list(model.redaction.kinds)} == model.report["redact"]


def test_without_it_the_vocabulary_tells(tmp_path, monkeypatch):
    """The counter-check: what is searched for would be found."""
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "cache"))
    tw.fit(reviews(tmp_path / "r.csv"), steps="majority, ngrams", out=tmp_path / "model")
    found = {secret for _, data in every_byte(tmp_path / "model") for secret in PLANTED if secret.encode() in data}
    assert {"xaverl", "quietdomain"} <= found


def test_the_model_masks_what_it_is_asked(fitted, tmp_path):
    _, model, _ = fitted
    one, other = (
        f"a lovely film, write to {who}@{where}.com, 13800138000" for who, where in (("a", "b"), ("zoe.q", "else"))
    )
    np.testing.assert_array_equal(model.probabilities([one]), model.probabilities([other]))
    np.testing.assert_array_equal(
        model.probabilities(["a lovely film, write to [EMAIL], [PHONE]"]), model.probabilities([one])
    )
    answer = model.predict(one)
    assert answer.input == "a lovely film, write to [EMAIL], [PHONE]"
    (tmp_path / "t.txt").write_text(one)
    from pathlib import Path

    for given in (Path(tmp_path / "t.txt"), one.encode(), io.StringIO(one)):
        assert model.predict(given).probability == pytest.approx(answer.probability)
    numbers = json.dumps(tw.evaluate(model, reviews(tmp_path / "new.csv", 40)))
    assert not any(secret in numbers for secret in PLANTED)


def test_extending_masks_as_the_model_does(tmp_path):
    model = tw.fit(
        reviews(tmp_path / "r.csv", 40), redact="email,phone", steps="majority, probe", out=tmp_path / "model"
    )
    rows = [f'"strange weather {i} today, ask xaverl{i}@quietdomain.org",odd' for i in range(12)]
    (tmp_path / "odd.csv").write_text("\n".join(["text,label", *rows]))
    more = tw.extend(model, tmp_path / "odd.csv", out=tmp_path / "more")
    assert more.manifest["redact"] == model.manifest["redact"] == {"how": "mask", "kinds": ["email", "phone"]}
    assert more.predict("strange weather, ask a@b.org").label == "odd"
    for path, data in every_byte(tmp_path / "model", tmp_path / "more", tmp_path / "cache"):
        assert not any(secret.encode() in data for secret in ("xaverl", "quietdomain", "13800138000")), path


def test_names_from_the_hubs_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    home, commit = tmp_path / "hub/models--org--names", "0123456789" * 4
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text(commit)
    names_model(home / "snapshots" / commit)
    data = tmp_path / "r.csv"
    data.write_text("text,label\n" + "\n".join(f"Anna Miller meets Bob {i},{'ab'[i % 2]}" for i in range(6)))
    told = tw.redact(data, tmp_path / "new.csv", names="hf:org/names", kinds="names,email")
    assert told["found"] == {"names": {"count": 12, "items": 6}}
    assert "[NAMES] meets [NAMES] 0" in (tmp_path / "new.csv").read_text()
    with pytest.raises(FileNotFoundError):
        tw.redact(data, tmp_path / "other.csv", names="hf:org/nowhere")


def test_predicting_loads_no_torch(fitted):
    place, _, _ = fitted
    code = (
        "import sys, topwork as tw\n"
        f"print(tw.load({str(place / 'model')!r}).predict('mail x@y.org').input)\n"
        "assert not {'torch', 'transformers', 'sklearn', 'pyarrow'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "mail [EMAIL]"


def test_settings_stop_it_before_work(tmp_path):
    data = reviews(tmp_path / "r.csv", 20)
    for redact, message in (
        ("emial", "Did you mean 'email'"),
        ("names(folder='x')", "a saved model would need its model, too"),
    ):
        with pytest.raises(BadSetting, match=message):
            tw.fit(data, redact=redact, steps="majority", out=tmp_path / "model")
    for options, message in (
        ({"how": "pseudonym"}, "need a secret key"),
        ({"kinds": "names"}, "names need a model that tells them"),
        ({"names": "anna"}, "expected local:FOLDER or hf:ORG/NAME"),
        ({"faces": "local:x.pt"}, "expected a detector as ONNX"),
    ):
        with pytest.raises(BadSetting, match=message):
            tw.redact(data, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_images_leave_thumbnails_without_metadata(tmp_path, monkeypatch):
    """GPS, comments, XMP, previews planted in every photo; nothing of it in report, model or cache."""
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(24):
        values = rng.integers(0, 60, (64, 64, 3)) + (np.array([150, 20, 20]) if i % 2 else np.array([20, 20, 150]))
        path = tmp_path / "photos" / ("red" if i % 2 else "blue") / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(1 + i % 8, image=Image.fromarray(values.astype(np.uint8))))
    assert b"SECRET" in exif(1)
    tw.fit(tmp_path / "photos", steps="majority, pixels, probe", out=tmp_path / "model")
    report = (tmp_path / "model" / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") > 4
    import base64
    import re

    pictures = [base64.b64decode(code) for code in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", report)]
    held = [*every_byte(tmp_path / "model", tmp_path / "cache"), *((tmp_path, data) for data in pictures)]
    for path, data in held:
        for secret in (b"SECRET", *SECRETS[2:]):
            assert secret not in data, path
    assert all(b"Exif" not in data for data in pictures)


def test_command_line(tmp_path):
    data = reviews(tmp_path / "r.csv", 20)
    runner = CliRunner()
    done = runner.invoke(app, ["redact", str(data), "--out", str(tmp_path / "new.csv")])
    assert done.exit_code == 0, done.output
    assert "20 texts, " in done.output
    assert "email" in done.output
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0")
    names = f"local:{names_model(tmp_path / 'names')}"
    arguments = [
        "redact",
        str(data),
        "--out",
        str(tmp_path / "n"),
        "--how",
        "pseudonym",
        "--key",
        str(key),
        "--names",
        names,
        "--json",
    ]
    told = json.loads(runner.invoke(app, arguments).output)
    assert told["how"] == "pseudonym"
    assert told["kinds"][-1] == "names"
    assert not any(secret.encode() in data for secret in PLANTED for _, data in every_byte(tmp_path / "n"))


def test_rules_ask_the_source_for_their_column(tmp_path):
    data = reviews(tmp_path / "r.csv", 60, planted=False)
    for rule, said in (
        ("by_time(column='created', test=0.25)", "split by_time(time), from 2024-02-18 00:00:00 on: 45 train, 15 test"),
        ("by_domain(test='Y', column='shop')", "split by_domain(Y): 40 train, 20 test"),
        ("few_shot(k=4)", "split few_shot(4), seed 0: 8 train, 52 test"),
    ):
        done = CliRunner().invoke(app, ["split", str(data), "--out", str(tmp_path / "s.csv"), "--rule", rule])
        assert done.exit_code == 0, done.output
        assert said in done.output
    for rule, n in (("by_time(column='created', test=0.25)", 15), ("by_domain(column='shop')", 60)):
        model = tw.fit(data, split=rule, steps="majority, ngrams", out=tmp_path / "model")
        assert model.report["evaluated_on"]["n"] == n
    assert "3 parts, each left out in turn" in model.report["evaluated_on"]["text"]
