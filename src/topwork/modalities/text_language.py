"""Script and language of texts: blocks of Unicode, then frequent words and letters that only some languages have.

    scripts     share of all letters: {"Latin": 0.98, "Greek": 0.02}
    language    of a text: its main script names it (Greek, Hangul, Thai ...), or letters do (kana: Japanese, others of
                Han: Chinese; Cyrillic, Arabic by the letters below), or for Latin script the language with
                sum over words w of weight(w, l)   largest,   weight = 1 / number of languages in which w is frequent
                if at least a twelfth of the words are frequent ones of that language; where two are close, the one
                that the whole set has more of
    languages   share of the texts long enough to tell; a text of fewer than 4 words says nothing

The word lists are the commonest function words of each language, written down for this file. `notice` looks at 2,000
texts spread over all, at 600 characters of each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOOK = 2000  # texts
LOOK_CHARACTERS = 600  # of each
MIN_WORDS = 4
CLOSE = 0.6  # of the best score
MIN_SHARE = 1 / 12  # of the words of a text that are frequent ones of its language

_BLOCKS = (  # first code point, script; a script ends where the next begins
    (0x0000, ""), (0x0041, "Latin"), (0x005B, ""), (0x0061, "Latin"), (0x007B, ""), (0x00AA, "Latin"), (0x00AB, ""),
    (0x00BA, "Latin"), (0x00BB, ""), (0x00C0, "Latin"), (0x00D7, ""), (0x00D8, "Latin"), (0x00F7, ""),
    (0x00F8, "Latin"), (0x0250, "Latin"), (0x02B0, ""), (0x0370, "Greek"), (0x0400, "Cyrillic"), (0x0530, "Armenian"),
    (0x0590, "Hebrew"), (0x0600, "Arabic"), (0x0700, "other"), (0x0750, "Arabic"), (0x0780, "other"),
    (0x0870, "Arabic"), (0x0900, "Devanagari"), (0x0980, "Bengali"), (0x0A00, "Gurmukhi"), (0x0A80, "Gujarati"),
    (0x0B00, "other"), (0x0B80, "Tamil"), (0x0C00, "Telugu"), (0x0C80, "Kannada"), (0x0D00, "Malayalam"),
    (0x0D80, "Sinhala"), (0x0E00, "Thai"), (0x0E80, "Lao"), (0x0F00, "other"), (0x1000, "Myanmar"),
    (0x10A0, "Georgian"), (0x1100, "Hangul"), (0x1200, "Ethiopic"), (0x13A0, "other"), (0x1780, "Khmer"),
    (0x1800, "other"), (0x1C80, "Cyrillic"), (0x1C90, "Georgian"), (0x1CC0, "other"), (0x1D00, "Latin"),
    (0x1DC0, ""), (0x1E00, "Latin"),
    (0x1F00, "Greek"), (0x2000, ""), (0x2C00, "other"), (0x2C60, "Latin"), (0x2C80, "other"), (0x2DE0, "Cyrillic"),
    (0x2E00, ""), (0x2E80, "Han"), (0x3000, ""), (0x3005, "Han"), (0x3008, ""), (0x3041, "Kana"), (0x3099, ""),
    (0x309D, "Kana"), (0x30FB, ""), (0x30FC, "Kana"), (0x3100, "other"), (0x3131, "Hangul"), (0x3190, ""),
    (0x31F0, "Kana"), (0x3200, ""), (0x3400, "Han"), (0x4DC0, ""), (0x4E00, "Han"), (0xA000, "other"),
    (0xA640, "Cyrillic"), (0xA6A0, "other"), (0xA720, "Latin"), (0xA800, "other"), (0xA8E0, "Devanagari"),
    (0xA900, "other"), (0xA960, "Hangul"), (0xA980, "other"), (0xAB30, "Latin"), (0xAB70, "other"),
    (0xAC00, "Hangul"), (0xD800, ""), (0xF900, "Han"), (0xFB00, "Latin"), (0xFB13, "Armenian"), (0xFB1D, "Hebrew"),
    (0xFB50, "Arabic"), (0xFE00, ""), (0xFE70, "Arabic"), (0xFEFF, ""), (0xFF21, "Latin"), (0xFF3B, ""),
    (0xFF41, "Latin"), (0xFF5B, ""), (0xFF66, "Kana"), (0xFFA0, "Hangul"), (0xFFE0, ""), (0x10000, "other"),
    (0x1D000, ""), (0x1E000, "other"), (0x1F000, ""), (0x20000, "Han"), (0x40000, ""),
)  # fmt: skip
SCRIPTS = tuple(sorted({name for _, name in _BLOCKS if name}))
_STARTS = np.array([start for start, _ in _BLOCKS], np.uint32)
_NUMBER = np.array([SCRIPTS.index(name) if name else -1 for _, name in _BLOCKS], np.int64)

_OF_SCRIPT = {
    "Greek": "el", "Armenian": "hy", "Hebrew": "he", "Devanagari": "hi", "Bengali": "bn", "Gurmukhi": "pa",
    "Gujarati": "gu", "Tamil": "ta", "Telugu": "te", "Kannada": "kn", "Malayalam": "ml", "Sinhala": "si", "Thai": "th",
    "Lao": "lo", "Myanmar": "my", "Georgian": "ka", "Hangul": "ko", "Ethiopic": "am", "Khmer": "km", "Kana": "ja",
}  # fmt: skip
_MARKS = {  # script: (language, letters that it has and the ones below have not); the last one is what remains
    "Cyrillic": (("uk", "іїєґ"), ("sr", "јљњћђџ"), ("ru", "ыэё"), ("bg", "ъщ"), ("ru", "")),
    "Arabic": (("ur", "ٹڈڑںے"), ("fa", "پچژگ"), ("ar", "")),
}  # fmt: skip

_WORDS = {
    "en": "the of and to in is was it that for with as his he be on at by not this are but from or have an they which "
    "you had we were there been has their would what will can my your how do does i she when who if her all so "
    "its a no more about than some out up into just only very also me because like even it's i'm don't doesn't "
    "didn't can't that's am him us these those other after before over then too much where why being",
    "de": "der die und das ist nicht ein eine ich mit zu den sich auf dem von für es auch im wird sind war als wir "
    "sie aus bei nach oder aber noch wie einen zum haben nur kann über vor durch man wenn mein sehr wurde "
    "werden",
    "fr": "le la les de des et est un une du dans que qui en pour pas sur au ce il ne se plus par avec je sont nous "
    "vous mais cette été elle son sa ses ou on aux tout très bien comme être fait leur j'ai c'est qu'il",
    "es": "el la los las de que y en un una es no se por con para su lo como más pero sus le ya este ha muy sin sobre "
    "también me hasta hay donde quien desde todo nos durante ni contra esta fue son está cuando yo mi del al",
    "it": "il lo la gli le di che e un una è non per in con del della dei delle si da sono al nel più anche come ma "
    "ho questo questa alla dal ha molto mi se era dalla nella perché stato essere ci hanno suo sua tutto",
    "pt": "o a os as de que e do da em um uma para com não se no na por mais dos como mas foi ao ele das tem à seu "
    "sua ou ser quando muito há nos já está eu também só pelo pela até isso ela entre depois sem mesmo são você",
    "nl": "de het een en van in is dat niet op te zijn met voor ik er aan die als maar ook om dan wat bij nog naar "
    "hij uit ze door over heeft wordt deze dit geen kan werd hebben worden zij wel was of mijn zo je heel",
    "sv": "och att det i en som är av för på med den till har inte om ett han men jag var de vi kan så från när hade "
    "eller sin ska vara mycket också efter blev bara detta mig där nu hon varit hur skulle alla",
    "da": "og at det i en er til af på for med den der som ikke de har et jeg var han men vi kan så om fra når havde "
    "eller sin skal være meget også efter blev kun dette mig hvor nu hun hvordan ville alle blive",
    "no": "og at det i en er til av på for med den som ikke de har et jeg var han men vi kan så om fra når hadde "
    "eller sin skal være veldig også etter ble bare dette meg hvor nå hun hvordan ville alle bli mye",
    "fi": "ja on ei se että en oli hän mutta kun niin kuin joka ovat myös ole minä mitä vain tämä sen olen sitä jos "
    "nyt siitä sitten tai kanssa voi hyvin hänen jo mukaan jälkeen sekä ollut vielä olisi kaikki",
    "pl": "i w nie na z do się że jest to jak o po ale co za od tak przez jego był dla było już tylko czy może są "
    "które który być ma ich jej oraz tym także sobie nas kiedy mnie bardzo jestem tego ten",
    "cs": "a v se na je že to s z do o i jako k ale si by pro za jsem byl jsou od po tak jeho jak který která které "
    "jen není už bylo být nebo však také má jsme když mi velmi této",
    "ro": "și de în a la nu o cu pe că este un se din mai care pentru ce au sunt fost dar prin sa lui am ca fi dacă "
    "după ale aceasta sau era foarte această fără acest până fiind",
    "tr": "ve bir bu da de için ile çok ne gibi daha o var ama kadar olarak değil en ki olan mi sonra her ben benim "
    "şey şu ya oldu hiç bana iyi yok diye zaman nasıl veya hem",
    "id": "yang dan di dengan untuk ini itu dari tidak dalam pada adalah akan saya ke juga ada oleh atau bisa sudah "
    "kami mereka dapat telah lebih karena tersebut seperti sangat anda kita hanya bagi",
    "vi": "và của là có không được cho một trong người với các này những đã khi để tôi đến cũng từ rất thì ra như về "
    "làm nhưng vào bạn lại nhiều đó phải chỉ sẽ hơn",
    "hu": "a az és hogy nem is egy ez de volt van meg csak már mint még azt ha vagy el én azonban kell lehet nagyon "
    "ki minden lett aki ezt sem pedig után között mert amely",
}  # fmt: skip
LANGUAGES = tuple(sorted({*_WORDS, *_OF_SCRIPT.values(), "zh", *(name for m in _MARKS.values() for name, _ in m)}))
_OWNERS: dict[str, tuple[str, ...]] = {}
for _language, _words in _WORDS.items():
    for _word in _words.split():
        _OWNERS[_word] = (*_OWNERS.get(_word, ()), _language)
_TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def notice(texts: Sequence[str]) -> dict[str, Any]:
    """Shares of scripts (of letters) and languages (of texts), largest first, and the main ones, as plain JSON."""
    step = max(1, len(texts) // LOOK)
    looked = [text[:LOOK_CHARACTERS] for text in texts[::step]]
    counts = script_counts(looked)  # (M, S)
    total = counts.sum(0)
    scripts = {
        SCRIPTS[s]: round(float(total[s] / total.sum()), 4) for s in np.argsort(-total, kind="stable") if total[s]
    }
    scores = [_scores(text, row) for text, row in zip(looked, counts, strict=True)]
    whole: Counter[str] = Counter()
    for own in scores:
        whole.update(own)
    told = Counter(name for own in scores if (name := _best(own, whole)))
    known = sum(told.values())
    languages = {name: round(count / known, 4) for name, count in told.most_common()}
    return {
        "scripts": scripts,
        "script": next(iter(scripts), ""),
        "languages": languages,
        "language": next(iter(languages), ""),
    }


def language_of(text: str) -> str:
    """ISO 639-1 code of the language, "" where it cannot be told."""
    return _best(_scores(text, script_counts([text])[0]), {})


def script_counts(texts: Sequence[str]) -> NDArray[np.int64]:
    """(N, S) letters of each of SCRIPTS in each text."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "replace"), np.uint32)
    script = _NUMBER[np.searchsorted(_STARTS, codes, "right") - 1]
    owner = np.repeat(np.arange(len(texts)), np.fromiter(map(len, texts), np.int64, len(texts)))
    letters = script >= 0
    flat = np.bincount(owner[letters] * len(SCRIPTS) + script[letters], minlength=len(texts) * len(SCRIPTS))
    return flat.reshape(len(texts), len(SCRIPTS))


def _best(scores: Mapping[str, float], whole: Mapping[str, float]) -> str:
    """The language with the best score; among those that are close, the one that the whole set has more of."""
    if not scores:
        return ""
    most = max(scores.values())
    close = [name for name, score in scores.items() if score >= CLOSE * most]
    return max(close, key=lambda name: (whole.get(name, 0), scores[name], name))


def _scores(text: str, counts: NDArray[np.int64]) -> dict[str, float]:
    """How much speaks for each language; nothing where it cannot be told."""
    total = int(counts.sum())
    if not total:
        return {}
    script = SCRIPTS[int(counts.argmax())]
    if script in ("Han", "Kana"):
        kana = int(counts[SCRIPTS.index("Kana")])
        return {} if total == 1 else {"ja" if kana > total / 20 else "zh": 1.0}
    if script in _OF_SCRIPT:
        return {_OF_SCRIPT[script]: 1.0}
    if script in _MARKS:
        low = text.lower()
        return {next(name for name, marks in _MARKS[script] if not marks or any(c in low for c in marks)): 1.0}
    return _latin(text) if script == "Latin" else {}


def _latin(text: str) -> dict[str, float]:
    words = _TOKEN.findall(text.casefold().replace("\u2019", "'"))
    if len(words) < MIN_WORDS:
        return {}
    score: dict[str, float] = {}
    hits: Counter[str] = Counter()
    for word in words:
        owners = _OWNERS.get(word, ())
        for language in owners:
            score[language] = score.get(language, 0.0) + 1 / len(owners)
            hits[language] += 1
    enough = max(1.0, MIN_SHARE * len(words))
    return {language: value for language, value in score.items() if hits[language] >= enough}
