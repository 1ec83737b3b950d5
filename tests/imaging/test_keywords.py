from __future__ import annotations

from cxr_embed.imaging.keywords import why_not_a_keyword


def test_a_keyword_is_known_and_a_mistake_is_near_one() -> None:
    assert why_not_a_keyword("Modality") is None
    assert why_not_a_keyword("Modalty") == (
        "'Modalty' is not a DICOM attribute: did you mean Modality?"
    )
    assert why_not_a_keyword("zzz") == "'zzz' is not a DICOM attribute"
