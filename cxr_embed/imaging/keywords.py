"""The keywords of DICOM attributes (PS3.6), such as `Modality`."""

from __future__ import annotations

import difflib

from pydicom.datadict import keyword_dict


def why_not_a_keyword(word: str) -> str | None:
    """Returns why a word is not the keyword of an attribute, with the nearest one, or None."""
    if word in keyword_dict:
        return None
    near = difflib.get_close_matches(word, keyword_dict, n=1)
    hint = f": did you mean {near[0]}?" if near else ""
    return f"{word[:64]!r} is not a DICOM attribute{hint}"
