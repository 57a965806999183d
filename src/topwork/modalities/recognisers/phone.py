"""Phone numbers: international, American, European, Chinese mobile.

    +49 (0)30 123456-78, 0086 138 0013 8000   a country's code, 8 to 15 digits (ITU-T E.164)
    (415) 555-2671, 415.555.2671              area and exchange begin with 2 to 9 (NANP)
    020 7946 0958, 030/1234567, 06-12345678   0, 9 to 12 digits, in groups; together where mobile numbers are so
    01 23 45 67 89, 612 34 56 78              French and Spanish pairs
    13800138000, 138 0013 8000                the prefixes that the ministry has given out, 11 digits
    tel 4155552671, 电话：87654321              7 to 13 digits together after a word that says so

There is no check digit, so what stands around decides: dates, decimals, versions, ISBNs, and national numbers after a
word like "order" or "invoice" are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch
from topwork.modalities.recognisers._digits import digits_of, said_before

_CODES = (
    "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 "
    "84 86 90 91 92 93 94 95 98 211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 "
    "235 236 237 238 239 240 241 242 243 244 245 246 248 249 250 251 252 253 254 255 256 257 258 260 261 262 263 "
    "264 265 266 267 268 269 290 291 297 298 299 350 351 352 353 354 355 356 357 358 359 370 371 372 373 374 375 "
    "376 377 378 380 381 382 383 385 386 387 389 420 421 423 500 501 502 503 504 505 506 507 508 509 590 591 592 "
    "593 594 595 596 597 598 599 670 672 673 674 675 676 677 678 679 680 681 682 683 685 686 687 688 689 690 691 "
    "692 800 808 850 852 853 855 856 870 878 880 881 882 883 886 888 960 961 962 963 964 965 966 967 968 970 971 "
    "972 973 974 975 976 977 979 992 993 994 995 996 998"
)  # ITU, list of assigned country codes
_COUNTRIES = frozenset(_CODES.split())
# Behind the first character of a number, so that a search leaps from digit to digit.
_FREE = r"(?<![A-Za-z0-9_].)(?<!\d[-.,/:].)(?<![A-Za-z]-.)"
_AFTER = r"(?![A-Za-z0-9_])(?![.,:]\d)"
_GAP = r"[ ().\-/]"
_ABROAD = re.compile(
    rf"(?:\((?=[+0])|[+0])(?<!\+.){_FREE}(?:(?<=\()(?:\+|00(?=[1-9]))|(?<=\+)|(?<=0)0(?=[1-9]))"
    rf"\)? ?\d(?:{_GAP}{{0,3}}\d){{6,17}}(?!\d)"
)
_NANP = re.compile(
    rf"(?:\((?=\d)|[1-9]){_FREE}(?<![$€£¥].)(?:(?<=1)[ .\-]\(?)?"
    rf"(?:(?<=\()[2-9]\d\d\)[ .\-]?|(?<=[2-9])\d\d[ .\-]|(?<=[ .\-])[2-9]\d\d[ .\-])"
    rf"[2-9]\d\d[ .\-]\d{{4}}"
    rf"{_AFTER}(?!-\d)"
)
_GROUPED = re.compile(r"1[ .\-]\(?[2-9]\d\d\)?[ .\-]?[2-9]\d\d[ .\-]\d{4}")  # 141 5555 2671 is Chinese
_TRUNK = re.compile(
    rf"(?:\((?=0)|0){_FREE}(?:(?<=\()0 ?[1-9]\d{{0,4}}\)|(?<=0)[1-9]\d{{0,4}})(?:[ /\-]{{1,3}}\d{{2,8}}){{1,5}}{_AFTER}"
)
_PAIRS = re.compile(rf"[067]{_FREE}(?:(?<=0)[1-9](?:\.\d\d){{4}}|(?<!0)\d\d \d\d \d\d \d\d){_AFTER}")
_TOGETHER = re.compile(rf"0{_FREE}(?:7[1-9]\d{{8}}|[67]\d{{8}}|1[567]\d{{8,9}}){_AFTER}(?!-\d)")
_CHINA = re.compile(
    rf"[18]{_FREE}(?:(?<=8)6[ \-]?1)?(?<=1)"
    rf"(?:3\d|4[014-9]|5[0-35-9]|6[2567]|7[0-8]|8\d|9[0-35-9])([ \-]?)\d{{4}}\1\d{{4}}{_AFTER}(?!-\d)"
)
_SAID = re.compile(rf"(?:\((?=\d)|\d){_FREE}(?:(?<=\()\d)?(?:[ ().\-/]{{0,2}}\d){{6,12}}{_AFTER}(?!-\d)")
_WORDS = re.compile(
    r"(?:\b(?:tele?(?:phone|fon[eo]?|f)?|t[ée]l[ée]?(?:phone|fono)?|phone|mobile?|mob|cell(?:phone)?|call|fax|whatsapp"
    r"|handy|m[óo]vil|ring|sms|text me(?: at)?|rufnummer)\b|电话|電話|手机|手機|联系方式|座机|传真|微信)\D{0,12}$",
    re.IGNORECASE,
)
_NO_WORDS = re.compile(
    r"(?:\b(?:orders?|invoice|isbn|issn|ean|upc|sku|ref(?:erence)?|ticket|tracking|parcel|serial|part|article|artikel|item"
    r"|bestell\w*|rechnung\w*|auftrag\w*|commande|facture|pedido|factura|case|batch|lot|version|build|model|id)\b"
    r"[ .:#=]{0,2}(?:(?:no|nr|num|number|nummer|id|n°)\b)?|#|№|订单号?|编号|单号|发票|型号|版本)[ .:#=：]{0,3}$",
    re.IGNORECASE,
)
_DATE = re.compile(r"\(?(?:0\d|[12]\d|3[01])[ /\-](?:\d\d)[ /\-](?:19|20)\d\d(?!\d)")


@dataclass(frozen=True)
class Phone:
    """Numbers that could be dialled."""

    rank: ClassVar[int] = 2

    def find(self, text: str) -> Iterator[Stretch]:
        """In all the ways above; what is found in several ways overlaps."""
        for match in _ABROAD.finditer(text):
            end = _abroad(text, match.start(), match.end())
            if end and ("+" in match[0] or not said_before(_NO_WORDS, text, match.start())):
                yield match.start(), end
        for pattern in (_NANP, _PAIRS, _TOGETHER, _CHINA):
            for match in pattern.finditer(text):
                if not said_before(_NO_WORDS, text, match.start()):
                    yield match.span()
        for match in _TRUNK.finditer(text):
            if _DATE.match(match[0]) or said_before(_NO_WORDS, text, match.start()):
                continue
            if end := _within(text, match.start(), match.end(), 9, 12):
                yield match.start(), end
        for match in _SAID.finditer(text):
            if not _DATE.match(match[0]) and said_before(_WORDS, text, match.start()):
                yield match.span()

    def canonical(self, found: str) -> str:
        """+ and country where they are known, and the digits."""
        plain = found.replace("(0)", "")
        digits = digits_of(plain)
        if plain.lstrip("( ").startswith("+"):
            return f"+{digits}"
        if digits.startswith("00"):
            return f"+{digits[2:]}"
        if re.fullmatch(r"[2-9]\d\d[2-9]\d{6}", digits) or _GROUPED.fullmatch(plain):
            return f"+1{digits[-10:]}"
        if re.fullmatch(r"(?:86)?1[3-9]\d{9}", digits):
            return f"+86{digits[-11:]}"
        return digits


def _abroad(text: str, start: int, end: int) -> int:
    """Where an international number ends, at the end of a group; 0: it is none."""
    if re.match(r"[.,]\d", text[end : end + 2]):
        return 0
    written = text[start:end]
    digits = digits_of(written.replace("(0)", ""))[0 if "+" in written else 2 :]
    code = next((digits[:n] for n in (1, 2, 3) if digits[:n] in _COUNTRIES), "")
    if not code or digits.startswith("00", len(code)):
        return 0
    count = len(digits)
    while count >= 8:
        if count <= 15 and _has_length(digits[:count], code):
            return end
        shorter = _shorter(text, start, end)
        count -= len(digits_of(text[shorter:end]))
        end = shorter
    return 0


def _has_length(digits: str, code: str) -> bool:
    """Whether a number of this country may have so many digits."""
    if code == "1":
        return re.fullmatch(r"1[2-9]\d\d[2-9]\d{6}", digits) is not None
    return code == "39" or digits[len(code)] != "0" or len(digits) >= len(code) + 9


def _within(text: str, start: int, end: int, least: int, most: int) -> int:
    """Where the longest run of whole groups with so many digits ends; 0: there is none."""
    count = len(digits_of(text[start:end]))
    while count > most:
        shorter = _shorter(text, start, end)
        count -= len(digits_of(text[shorter:end]))
        end = shorter
    return end if count >= least else 0


def _shorter(text: str, start: int, end: int) -> int:
    """The end without the last group."""
    while end > start and text[end - 1].isdecimal():
        end -= 1
    while end > start and not text[end - 1].isdecimal():
        end -= 1
    return end
