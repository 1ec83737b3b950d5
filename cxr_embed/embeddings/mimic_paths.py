"""The ids that MIMIC-CXR's folders carry.

Source: MIMIC-CXR 2.0.0, https://physionet.org/content/mimic-cxr/2.0.0/:
`files/p10/p10000032/s50414267/<dicom_id>.dcm` - a folder for the first digits of the subject, one
for the subject, one for the study.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PATH = re.compile(r"(?:^|/)p(\d\d)/p(\1\d{6})/s(\d{8})/[^/]+$")


class MimicIds(NamedTuple):
    """The subject and the study of one image, numbers as in MIMIC's own tables."""

    subject_id: int
    study_id: int


def mimic_ids(image_id: str) -> MimicIds | None:
    """Returns the subject and study in an image's path; None where the path is not MIMIC's."""
    found = _PATH.search(image_id)
    return MimicIds(int(found[2]), int(found[3])) if found else None
