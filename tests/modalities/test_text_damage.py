"""Texts that were read in the wrong encoding or kept their markup, and those that only look so."""

import pytest

from topwork.modalities.text_damage import has_markup, is_garbled


@pytest.mark.parametrize(
    "text",
    ["café, très bien…", "it’s “fine” – 5 €", "你好，世界", "Größe und Straße", "Ещё не всё", "żółć", "¿Qué?", "naïve"],
)
def test_a_round_trip_through_the_wrong_encoding_is_seen(text):
    assert not is_garbled(text)
    for wrong in ("cp1252", "latin-1"):
        garbled = text.encode().decode(wrong, "replace")
        assert is_garbled(garbled), garbled
        assert is_garbled(f"The rest of it is all right: {garbled}, and goes on")


@pytest.mark.parametrize("text", ["dé\ufffdvu", "a\x07b", "\x96 a dash of Windows", "锟斤拷", "ï»¿begins"])
def test_signs_that_nobody_writes(text):
    assert is_garbled(text)


@pytest.mark.parametrize(
    "text",
    ["plain", "two\nlines\tand a tab\r\n", "CAFÉ» et «BAR»", "TRÈS «BON»", "DÉJÀ…", "5°C ±2", "Â", "É™", "Ã la carte",
     "emoji 😀 and ❤️", "ÄÖÜ", "A\u00a0b"],
)  # fmt: skip
def test_what_people_do_write(text):
    assert not is_garbled(text)


def test_markup():
    left = ["a<br />b", "<p>x</p>", '<a href="x">y</a>', "R&amp;D", "&#39;t", "&#x27;t", "[quote]x[/quote]", "<!-- x",
            "[url=http://x]y", "<BR>"]  # fmt: skip
    assert all(map(has_markup, left))
    fine = ["a < b and c > d", "AT&T; so", "<3 you", "[1] see", "i <i hate> this", "R&D", "x <y> z", "[sic]"]
    assert not any(map(has_markup, fine))
