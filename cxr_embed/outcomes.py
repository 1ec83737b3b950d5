"""The possible outcomes of an image: embedded, skipped or failed, with stable reason codes.

This module imports nothing from the package, so that every other module can import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Stage(StrEnum):
    """The processing stage in which an image failed."""

    READ = "read"
    DECODE = "decode"
    RENDER = "render"
    INFER = "infer"
    WRITE = "write"


class Reason(NamedTuple):
    """The stage and the meaning of a reason code."""

    stage: Stage
    meaning: str


# Scripts match on these codes. Codes may be added, but never renamed.
FAILURE_REASONS: dict[str, Reason] = {
    "read_error": Reason(Stage.READ, "the file could not be opened or read"),
    "unreachable": Reason(Stage.READ, "the storage service did not answer, after all retries"),
    "damaged_member": Reason(
        Stage.READ, "a member of an archive whose bytes are not those that the archive announces"
    ),
    "encrypted_member": Reason(Stage.READ, "a member of an archive that needs a password"),
    "unsafe_member": Reason(
        Stage.READ,
        "a member of an archive that is a link or a device, shares bytes with another member, or "
        "has an absolute path or one with ..",
    ),
    "unsupported_member": Reason(
        Stage.READ, "a member of an archive that is stored in a way that is not supported"
    ),
    "not_an_image": Reason(Stage.READ, "not readable as DICOM, PNG or JPEG"),
    "no_pixel_data": Reason(Stage.READ, "a DICOM file without an image in it"),
    "truncated": Reason(Stage.DECODE, "the file or its pixel data ends too early"),
    "unsupported_transfer_syntax": Reason(
        Stage.DECODE, "compressed in a way that no installed decoder reads"
    ),
    "decode_error": Reason(Stage.DECODE, "the header or the compressed pixels are damaged"),
    "multi_frame": Reason(Stage.DECODE, "more than one frame"),
    "not_grayscale": Reason(
        Stage.DECODE, "a photometric interpretation other than MONOCHROME1 and MONOCHROME2"
    ),
    "too_large": Reason(Stage.DECODE, "more pixels than --max_pixels allows"),
    "unsupported_bit_depth": Reason(Stage.DECODE, "a pixel format that a radiograph cannot have"),
    "constant_image": Reason(Stage.RENDER, "every pixel has the same value after rendering"),
    "bad_window": Reason(Stage.RENDER, "a window whose centre or width cannot be used"),
    "unexpected_error": Reason(
        Stage.RENDER, "an error in this program, not in the file: please report it"
    ),
    "model_error": Reason(Stage.INFER, "the model raised an error on this image"),
    "not_finite": Reason(Stage.INFER, "the embedding holds NaN or infinity"),
    "write_error": Reason(Stage.WRITE, "the record could not be written"),
}

SKIP_REASONS: dict[str, str] = {
    "not_frontal": "--views=frontal, and ViewPosition is there and is neither AP nor PA",
    "not_an_image": "a file among the images that does not look like one and is not named like one",
}

WARNINGS: dict[str, str] = {
    "voi_lut_ignored": "a VOI LUT Sequence is there; the cxr_foundation rendering does not use it",
    "presentation_inverse_ignored": (
        "PresentationLUTShape INVERSE on MONOCHROME2; the cxr_foundation rendering does not use it"
    ),
    "voi_function_ignored": (
        "a VOI LUT Function other than LINEAR; the cxr_foundation rendering windows linearly"
    ),
    "multiple_windows": "more than one window, the first was used",
    "missing_view_position": "View Position is absent or empty",
    "not_frontal": "View Position is neither AP nor PA",
    "lossy_compressed": "the pixels went through lossy compression",
    "not_a_radiograph": "the modality is none of CR, DX, RG, RF, XA, MG, PX, OT",
}


@dataclass(frozen=True, slots=True)
class Embedded:
    """An image whose record was written.

    Attributes:
        dicom_id: the input's file name without its image extension.
        path: the input's path, as given or listed.
        record: the record's path below the output.
        rows: height of the radiograph in pixels, before it is resized for the model.
        columns: width of the radiograph in pixels.
        warnings: stable codes, keys of `WARNINGS`.
        bytes: size of the input file; 0 if unknown.
        crc32c: checksum of the input file, 8 hexadecimal digits; empty if unknown.
        floats: floats in the embedding.
        file_state: state of the record's file, see `cxr_embed.storage.file_state`.
        outputs: name of the record's output, of a model with several.
    """

    dicom_id: str
    path: str
    record: str
    rows: int
    columns: int
    warnings: tuple[str, ...] = field(default=())
    bytes: int = 0
    crc32c: str = ""
    floats: int = 0
    file_state: str = ""
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that was skipped on purpose; `reason` is a key of `SKIP_REASONS`.

    Of a model with several outputs, `outputs` are those that it was skipped for; empty for all.
    """

    dicom_id: str
    path: str
    reason: str
    detail: str = ""
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """An image without a record; `reason` is a key of `FAILURE_REASONS`.

    Of a model with several outputs, `outputs` are those that have none; empty for all.
    """

    dicom_id: str
    path: str
    reason: str
    detail: str = ""
    outputs: tuple[str, ...] = ()

    @property
    def stage(self) -> Stage:
        """The stage of the reason."""
        return FAILURE_REASONS[self.reason].stage


Outcome = Embedded | Skipped | Failed
