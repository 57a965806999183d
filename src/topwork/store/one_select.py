"""Is a statement one select and nothing else? The transaction is read-only anyway; this says so before it begins.

Comments, strings and quoted names are taken out, once with a backslash as an escape (MySQL) and once without (standard
SQL); both readings must be a single statement that begins with SELECT, WITH, VALUES or TABLE and holds no word that
writes or locks. Comments that MySQL executes, /*! ... */, are refused.
"""

from __future__ import annotations

import re

from topwork.errors import BadSetting

BEGIN = ("select", "with", "values", "table")
FORBIDDEN = ("into", "insert", "update", "delete")  # inside WITH, INTO OUTFILE, FOR UPDATE
_EXPECTED = 'Expected one select, e.g. --query "select path, label from photos"'


def one_select(query: str) -> str:
    """The statement without what stands around it; BadSetting where it is not one select."""
    bare = query.strip()
    while bare.endswith(";"):
        bare = bare[:-1].rstrip()
    if not bare:
        raise BadSetting(f"the query is empty. {_EXPECTED}")
    for escapes in (False, True):
        _check(_without_quoted(bare, escapes))
    return bare


def is_select(text: str) -> bool:
    """Whether a text begins like one."""
    return bool(re.match(r"[\s(]*(?:select|with)\b", text, re.IGNORECASE))


def _check(text: str) -> None:
    if ";" in text:
        raise BadSetting(f"the query holds several statements. {_EXPECTED}")
    words = re.findall(r"[a-z_]\w*\s*\(?", text.lower())
    first = words[0].rstrip("( \t\n") if words else ""
    if first not in BEGIN:
        raise BadSetting(f"the query begins with {first.upper() or 'no word'}. {_EXPECTED}")
    for word in words:
        name = word.rstrip("( \t\r\n\f\v")
        if name in FORBIDDEN and not word.endswith("("):  # INSERT() is a function of MySQL's
            raise BadSetting(f"the query holds {name.upper()}: a query only reads. {_EXPECTED}")


def _without_quoted(query: str, escapes: bool) -> str:
    inside = r"(?:[^{0}\\]|\\.|{0}{0})*" if escapes else r"(?:[^{0}]|{0}{0})*"
    parts = (
        r"--[^\n]*", r"/\*.*?(?:\*/|\Z)", r"\$(\w*)\$.*?\$\1\$",
        *(quote + inside.format(quote) + f"(?:{quote}|$)" for quote in ("'", '"', "`")), r"\[[^\]\[]*\]",
    )  # fmt: skip
    if re.search(r"/\*M?!", query):
        raise BadSetting(f"the query holds a comment that is executed, /*! ... */. {_EXPECTED}")
    return re.sub("|".join(parts), lambda found: "''" if found[0][0] not in "-/" else " ", query, flags=re.DOTALL)
