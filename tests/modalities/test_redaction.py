import hashlib
import hmac
import random
from collections import Counter

import pytest

from topwork.errors import BadSetting
from topwork.modalities.redaction import KEY_VARIABLE, Redaction, kinds, read_key
from topwork.modalities.text_folding import fold, where

KEY = b"0123456789abcdef-secret"
TEXT = "Anna (anna@example.org, +49 30 1234567) paid with 4111 1111 1111 1111; ANNA@EXAMPLE.ORG wrote again."


def test_masks_and_counts():
    counts = Counter()
    done = Redaction.of().text(TEXT, counts)
    assert done == "Anna ([EMAIL], [PHONE]) paid with [CARD]; [EMAIL] wrote again."
    assert counts == {"email": 2, "phone": 1, "card": 1}
    assert Redaction.of("email").text(TEXT).count("[") == 2
    assert Redaction.of().text("nothing here, 12 May 2024") == "nothing here, 12 May 2024"


def test_the_same_person_has_the_same_pseudonym():
    redaction = Redaction.of(None, "pseudonym", KEY)
    done = redaction.text(TEXT)
    code = hmac.new(KEY, b"email\0anna@example.org", hashlib.sha256).hexdigest()[:16]
    assert done.count(f"[EMAIL_{code}]") == 2
    assert redaction.text("0049 (0)30 1234567") == "[PHONE" + done.split("[PHONE")[1].split("]")[0] + "]"
    other = Redaction.of(None, "pseudonym", b"another-key-of-16-bytes").text(TEXT)
    assert f"[EMAIL_{code}]" not in other
    assert not any(secret in done.casefold() for secret in ("anna@", "4111", "1234567"))


def test_without_a_key_there_are_no_pseudonyms(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(BadSetting, match="need a secret key of at least 16 bytes"):
        Redaction.of(None, "pseudonym", read_key(None))
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    assert read_key(None) == KEY
    (tmp_path / "key").write_bytes(KEY + b"\n")
    assert read_key(tmp_path / "key") == KEY
    with pytest.raises(BadSetting, match="cannot be read: No such file"):
        read_key(tmp_path / "nowhere")
    assert "secret" not in repr(Redaction.of(None, "pseudonym", KEY))


@pytest.mark.parametrize("how", ["mask", "pseudonym"])
def test_twice_changes_nothing(how):
    redaction = Redaction.of(None, how, KEY)
    rng = random.Random(0)
    parts = [
        "anna@example.org",
        "13800138000",
        "4111111111111111",
        "+1 415 555 2671",
        "192.168.0.1",
        "[EMAIL]",
        "[",
        "]",
        "_",
        " ",
        "https://a:b@h.de/?token=x",
        "tel",
        "00:1a:2b:3c:4d:5e",
        "\u200b",
        "12",
        "@",
        ".com",
        "&key=",
        "例",
        "[PHONE_0123456789abcdef]",
    ]
    for _ in range(400):
        text = "".join(rng.choices(parts, k=rng.randrange(1, 8)))
        once = redaction.text(text)
        assert redaction.text(once) == once, text
        assert not redaction.spans("".join(c for c in once if c != "[")) or "[" in once


def test_what_one_mask_lays_bare_is_found_at_once():
    assert Redaction.of().text("anna@example.com13800138000") == "[EMAIL][PHONE]"
    assert Redaction.of("credentials").text("https://anna:pw@h.de/x") == "https://[CREDENTIALS]@h.de/x"
    assert Redaction.of().text("https://anna:pw@h.de/x") == "https://[CREDENTIALS]/x"  # pw@h.de may be an address


def test_facts_bring_the_same_back():
    redaction = Redaction.of("email, phone")
    assert redaction.facts() == {"how": "mask", "kinds": ["email", "phone"]}
    assert Redaction.of_facts(redaction.facts()) == redaction
    assert Redaction.of(True).kinds == kinds() == Redaction.of().kinds
    assert "names" not in kinds()


@pytest.mark.parametrize(
    ("kinds", "how", "message"),
    [
        ("emial", "mask", "No 'emial' in modalities.recognisers.* Did you mean 'email'"),
        ("", "mask", "no kinds to redact"),
        ("email", "blur", "expected mask or pseudonym"),
        ("email(x=1)", "mask", "has no option x"),
    ],
)
def test_settings_that_cannot_work(kinds, how, message):
    with pytest.raises(BadSetting, match=message):
        Redaction.of(kinds, how)


def test_folding_keeps_places():
    text = "Ａ\u200bb\u00ad１２ \u2013\u3000é４\u0336½\t中"
    folded, places = fold(text)
    assert folded == "Ab12 - é4½ 中"
    for start in range(len(folded)):
        for end in range(start + 1, len(folded) + 1):
            a, b = where(places, start, end)
            assert fold(text[a:b])[0] == folded[start:end]
    assert fold("plain") == ("plain", None)
    assert fold("é全") == ("é全", None)
    rng = random.Random(2)
    for _ in range(200):
        text = "".join(
            chr(rng.choice((rng.randrange(32, 0x2FF), rng.randrange(0x2000, 0x2100), rng.randrange(0xFE00, 0x10000))))
            for _ in range(30)
        )
        folded, places = fold(text)
        assert len(folded) == len(text if places is None else places)
        assert fold(folded)[0] == folded
