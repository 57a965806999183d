"""Readers of texts by their kind, as an artefact names it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from topwork.errors import BadWeights
from topwork.modalities.text import READER, Reader


def open_reader(files: Mapping[str, bytes]) -> Reader:
    """The reader that `files()` came from; BadWeights where they are damaged, MissingExtra where a library is."""
    try:
        facts = json.loads(files[READER])
        kind = facts["kind"]
    except (KeyError, ValueError, TypeError) as error:
        raise BadWeights(f"{READER} is missing or damaged: {error}. Fit again") from error
    if kind == "pieces":
        from topwork.modalities.wordpiece import WordPiece as Kind
    elif kind == "tokens":
        from topwork.modalities.tokens import TokenReader as Kind
    elif kind == "ngrams":
        from topwork.modalities.ngrams import NgramReader as Kind
    elif kind == "columns":
        from topwork.modalities.columns import ColumnsReader as Kind
    else:
        raise BadWeights(f"{READER} names a reader '{kind}'. Expected pieces, tokens, ngrams, columns; upgrade topwork")
    return Kind.of_files(files)
