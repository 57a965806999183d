"""Scripts by the Unicode database, languages by sentences that every reader of them knows."""

import json
import unicodedata

import numpy as np
import pytest

from topwork.modalities.text_language import LANGUAGES, SCRIPTS, language_of, notice, script_counts

SENTENCES = {
    "en": "All human beings are born free and equal in dignity and rights.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren.",
    "sv": "Alla människor är födda fria och lika i värde och rättigheter.",
    "fi": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw, nie jest to mało.",
    "cs": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv, a to je dobře.",
    "ro": "Toate ființele umane se nasc libere și egale în demnitate și în drepturi.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar ve bir akla sahiptirler.",
    "id": "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "hu": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van, ez nem vitás.",
    "ru": "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "uk": "Всі люди народжуються вільними і рівними у своїй гідності та правах.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια.",
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "fa": "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند چون گفتیم.",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "zh": "人人生而自由，在尊严和权利上一律平等。",
    "ja": "すべての人間は、生まれながらにして自由であり、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_languages(language):
    assert language_of(SENTENCES[language]) == language
    assert language in LANGUAGES


def test_what_cannot_be_told():
    assert [language_of(text) for text in ("", "123 !?", "ok", "xqz wvk brt plm nnn qqq zzz", "中")] == [""] * 5


def test_scripts_are_those_of_the_unicode_database():
    names = {"LATIN": "Latin", "CYRILLIC": "Cyrillic", "GREEK": "Greek", "CJK": "Han", "HIRAGANA": "Kana",
             "KATAKANA": "Kana", "HANGUL": "Hangul", "ARABIC": "Arabic", "HEBREW": "Hebrew", "THAI": "Thai",
             "DEVANAGARI": "Devanagari"}  # fmt: skip
    wrong = []
    letters = [chr(c) for c in (*range(0x1D00), *range(0x1E00, 0x2000), *range(0x2C60, 0x3000))]
    letters = [char for char in letters if unicodedata.category(char) in ("Lu", "Ll", "Lo")]
    letters += [chr(c) for c in range(0x3041, 0x30FF) if unicodedata.category(chr(c)) == "Lo"]
    letters += list("一龥㐀豈𠀀가힣ＡＺａｚｱ")
    counts = script_counts(letters)
    for char, row in zip(letters, counts, strict=True):
        name = unicodedata.name(char, "").replace("FULLWIDTH ", "").replace("HALFWIDTH ", "").split(" ")[0]
        if name.split("-")[0] in names and (row.sum() != 1 or SCRIPTS[row.argmax()] != names[name.split("-")[0]]):
            wrong.append((char, name))
    assert len(letters) > 3000
    assert wrong == []
    assert script_counts(["12 .,!?\n 😀 。「」"]).sum() == 0


def test_shares_of_a_set():
    english = [SENTENCES["en"], "The film was not what I had expected of it.", "I will see it again with my friends."]
    said = notice([*english * 10, *[SENTENCES["zh"]] * 10])
    assert said["languages"] == {"en": 0.75, "zh": 0.25}
    assert (said["language"], said["script"]) == ("en", "Latin")
    letters = np.array([sum(c.isalpha() for c in "".join(texts)) for texts in (english * 10, [SENTENCES["zh"]] * 10)])
    assert list(said["scripts"].values()) == pytest.approx((letters / letters.sum()).tolist(), abs=1e-3)
    assert json.loads(json.dumps(said)) == said
    assert notice([]) == {"scripts": {}, "script": "", "languages": {}, "language": ""}


def test_what_is_close_goes_with_the_set():
    """ "no a la" words of two languages: alone they are open, in a set of Spanish reviews they are Spanish."""
    spanish = ["La película no es lo que yo esperaba, pero me ha gustado mucho."] * 20
    open_one = "para como que se da no tempo"
    assert notice([*spanish, open_one])["languages"] == {"es": 1.0}
