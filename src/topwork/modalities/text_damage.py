"""What a text has suffered on its way: read in another encoding than it was saved in, or left with its markup.

    is_garbled   runs that were UTF-8 and were read as Windows-1252 ("cafÃ©", "â€œ"), replacement and control
                 characters, "锟斤拷" (replacement characters read as GBK)
    has_markup   tags, entities or forum codes: "<br />", "&quot;", "[quote]"

A run counts as garbled if its characters, written as Windows-1252, are valid UTF-8 for something that people write:
"É»" would be valid, too, but for a sign of phonetics.
"""

from __future__ import annotations

import re

_LOST = re.compile("[\ufffd\u0001-\u0008\u000b\u000e-\u001f\u007f-\u0084\u0086-\u009f]|锟斤拷|ï»¿")
_RUN = re.compile(r"[\u00c2-\u00f4][^\u0000-\u007f]{1,15}")
_PLAUSIBLE = re.compile(
    "[\u00a0-\u024f\u0370-\u03ff\u0400-\u04ff\u0590-\u06ff\u0900-\u097f\u0e00-\u0e7f\u1e00-\u1eff\u2010-\u2044"
    "\u20ac\u2122\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uff60\U0001f300-\U0001faff]"
)
_TAG = (
    "a|abbr|article|b|blockquote|body|br|button|center|cite|code|dd|div|dl|dt|em|font|footer|form|h[1-6]|head|header|hr|"
    "html|i|iframe|img|input|label|li|link|meta|nav|ol|option|p|pre|script|section|small|span|strong|style|sub|sup|"
    "table|tbody|td|th|title|tr|tt|u|ul"
)
_MARKUP = re.compile(
    rf"</?(?:{_TAG})(?:\s+[a-z-]+\s*=[^<>]*|\s*/)?>|<!--|<!\[CDATA\[|&(?:amp|lt|gt|quot|apos|nbsp|[lr][sd]quo|hellip|[mn]dash|"
    r"#\d{2,6}|#x[0-9a-f]{2,5});|\[/?(?:b|i|u|url|img|quote|code)(?:=[^\]]*)?\]",
    re.IGNORECASE,
)
_CP1252 = {chr(i): bytes([i]) for i in range(128, 256)}
_CP1252 |= {c: bytes([i]) for i in range(128, 160) if (c := bytes([i]).decode("cp1252", "replace")) != "\ufffd"}


def is_garbled(text: str) -> bool:
    """Whether some of it was read in the wrong encoding."""
    if text.isascii():
        return not text.isprintable() and bool(_LOST.search(text))  # line ends are not printable, and no damage
    return bool(_LOST.search(text)) or any(_was_utf8(match[0]) for match in _RUN.finditer(text))


def has_markup(text: str) -> bool:
    """Whether tags, entities or forum codes are left in it."""
    return ("<" in text or "&" in text or "[" in text) and bool(_MARKUP.search(text))


def _was_utf8(run: str) -> bool:
    """Whether some beginning of the run is UTF-8 that was read as Windows-1252."""
    data = b"".join(_CP1252.get(c, b"\0") for c in run)
    told = data.split(b"\0")[0].decode("utf-8", "ignore") if data[:1] != b"\0" else ""
    first = told[:1]
    return bool(first) and first.encode("utf-8") == data[: len(first.encode("utf-8"))] and bool(_PLAUSIBLE.match(first))
