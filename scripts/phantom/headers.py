"""Headers as real chest radiographs carry them, for an imaginary person.

``headers.json`` holds the archetypes: what 7,469 radiographs of the Indiana University chest
X-ray collection (NLM Open-i), as tabulated by torchxrayvision, look like from outside, distilled
by ``scripts/distil_header_distribution.py``. Names, dates and UIDs were never in that table; the
ones written here are made up and say so.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, SecondaryCaptureImageStorage

from phantom.thorax import is_female

# Of the films whose header does not tell the view, the share made lateral.
_LATERAL_UNTOLD = 0.3
_S = 5.0  # Steepness of a VOI LUT's S curve over its whole domain.
# DICOM context group 4010, SNOMED CT.
_VIEW_CODES = {
    "PA": ("272479007", "postero-anterior"), "AP": ("399348003", "antero-posterior"),
    "LL": ("399173006", "left lateral"), "RL": ("399198007", "right lateral"),
}  # fmt: skip
_LATERAL_CODE = ("399067008", "lateral")


@dataclass(frozen=True)
class Plan:
    """What one file will look like, before any pixel is drawn.

    Attributes:
        header: Constant attributes of the archetype, by keyword, as text.
        view: The view to draw; told in the header only when ``told``.
        told: Whether ViewPosition is filled in.
        orientation: PatientOrientation's letters, such as "LF"; may be empty.
        rows: Height of the real films of this kind, in pixels.
        columns: Width of the same.
        spacing: PixelSpacing as written; may be empty.
        imager_spacing: ImagerPixelSpacing as written; may be empty.
        bits: BitsStored.
        inverted: Whether low stored values are bright (MONOCHROME1).
        signed: Whether PixelRepresentation is 1.
        windows: Centres and widths as written, or None.
        lut: Entries and first value mapped of the VOI LUT, or None.
    """

    header: dict[str, str]
    view: str
    told: bool
    orientation: str
    rows: int
    columns: int
    spacing: str
    imager_spacing: str
    bits: int
    inverted: bool
    signed: bool
    windows: tuple[list[str], list[str]] | None
    lut: tuple[int, int] | None

    @property
    def mirrored(self) -> bool:
        """Whether the rows run the other way than the phantom is drawn (to L, or to A)."""
        return self.orientation[:1] in ("R", "P")


@functools.cache
def archetypes() -> list[dict[str, Any]]:
    """The distilled archetypes, most frequent first."""
    text = files("phantom").joinpath("headers.json").read_text(encoding="ascii")
    return list(json.loads(text))


def draw_plan(
    rng: np.random.Generator, *, bits: int | None = None, inverted: bool | None = None,
    signed: bool = False, view: str | None = None,
) -> Plan:  # fmt: skip
    """Draws the outside of one file from the real distribution.

    Args:
        rng: Source of the randomness.
        bits: Overrides BitsStored; windows and LUTs are rescaled to match.
        inverted: Overrides whether the file is MONOCHROME1.
        signed: Whether stored values are signed; real radiographs never are.
        view: Overrides the view; "" leaves it untold.

    Returns:
        The plan.
    """
    kinds = archetypes()
    kind = kinds[_pick(rng, [k["count"] for k in kinds])]
    film = kind["films"][_pick(rng, [f[0] for f in kind["films"]])]
    _, told_view, orientation, rows, columns, spacing, imager_spacing = film
    untold = str(rng.choice(["PA", "LL"], p=[1 - _LATERAL_UNTOLD, _LATERAL_UNTOLD]))
    if view is not None and view != told_view:
        told_view, orientation = view, ""
    header = dict(kind["header"])
    own_bits = int(header["BitsStored"])
    bits = own_bits if bits is None else bits
    if bits != own_bits:
        for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue"):
            header.pop(keyword, None)
    mono1 = header["PhotometricInterpretation"] == "MONOCHROME1"
    if inverted is not None and inverted != mono1:
        mono1 = inverted
        if "PresentationLUTShape" in header:
            header["PresentationLUTShape"] = "INVERSE" if inverted else "IDENTITY"
    shift = 2 ** (bits - 1) if signed else 0
    windows = lut = None
    if "windows" in kind:
        _, centres, widths = kind["windows"][_pick(rng, [w[0] for w in kind["windows"]])]
        windows = centres, widths
        if bits != own_bits or shift:
            ratio = 2.0 ** (bits - own_bits)
            windows = (
                [f"{float(c) * ratio - shift:.1f}" for c in centres],
                [f"{max(float(w) * ratio, 2.0):.1f}" for w in widths],
            )
    if "luts" in kind:
        _, entries, first = kind["luts"][_pick(rng, [x[0] for x in kind["luts"]])]
        ratio = 2.0 ** (bits - own_bits)
        lut = max(2, int(entries * ratio)), int(first * ratio) - shift
    return Plan(
        header, told_view or untold, bool(told_view), orientation, rows, columns, spacing,
        imager_spacing, bits, mono1, signed, windows, lut,
    )  # fmt: skip


def stored_values(plan: Plan, radiograph: NDArray[np.float32]) -> NDArray[np.integer]:
    """Pixels as the file stores them: what its own window or LUT turns back into the picture.

    Args:
        plan: The file's outside.
        radiograph: float (rows, columns) in 0..1, bright where dense.

    Returns:
        uint8, uint16 or int16 (rows, columns).
    """
    shown = radiograph[:, ::-1] if plan.mirrored else radiograph
    shown = 1 - shown if plan.inverted else shown
    low = -(2 ** (plan.bits - 1)) if plan.signed else 0
    high = low + 2**plan.bits - 1
    if plan.windows:
        centre, width = float(plan.windows[0][0]), float(plan.windows[1][0])
        start, span = centre - 0.5 - (width - 1) / 2, width - 1
    elif plan.lut:
        entries, first = plan.lut
        # The LUT is an S, so its inverse is steep at both ends.
        steepest = 1 / (1 + np.exp(_S / 2))
        share = steepest + shown * (1 - 2 * steepest)
        shown = 0.5 + np.log(share / (1 - share)) / _S
        start, span = first, entries - 1
    else:
        start, span = low, high - low
    values = np.clip(np.rint(start + shown * span), low, high)
    if plan.bits <= 8:
        return values.astype(np.int8 if plan.signed else np.uint8)
    return values.astype(np.int16 if plan.signed else np.uint16)


def lut_data(plan: Plan) -> NDArray[np.uint16]:
    """The VOI LUT's entries, 16-bit: an S over its domain, or over the window if there is one.

    Raises:
        ValueError: The plan has no LUT.
    """
    if plan.lut is None:
        raise ValueError("this plan has no VOI LUT")
    entries, first = plan.lut
    at: NDArray[Any] = np.arange(entries) / max(entries - 1, 1)
    if plan.windows:
        centre, width = float(plan.windows[0][0]), float(plan.windows[1][0])
        at = 0.5 + (first + np.arange(entries) - centre) / width
    curve = 1 / (1 + np.exp(-_S * (np.clip(at, 0, 1) - 0.5)))
    curve = (curve - curve.min()) / max(float(np.ptp(curve)), 1e-9)
    return np.rint(curve * 65535).astype(np.uint16)


def make_header(plan: Plan, seed: int, rows: int, columns: int) -> Dataset:
    """Every attribute but the pixels.

    Args:
        plan: The file's outside.
        seed: The imaginary person, and the root of the UIDs.
        rows: Height of the file's image.
        columns: Width of the file's image.

    Returns:
        A dataset that is whole but for PixelData and the file meta.
    """
    ds = Dataset()
    for keyword, text in plan.header.items():
        if keyword != "LUTExplanation":  # That one belongs into the LUT's item.
            setattr(ds, keyword, _parsed(keyword, text))
    _add_identity(ds, plan, seed)
    ds.ViewPosition = plan.view if plan.told else ""
    ds.PatientOrientation = list(plan.orientation) or ""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if plan.inverted else "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated = 8 if plan.bits <= 8 else 16
    ds.BitsStored, ds.HighBit = plan.bits, plan.bits - 1
    ds.PixelRepresentation = int(plan.signed)
    if "CassetteSize" in ds:
        ds.CassetteOrientation = "PORTRAIT" if plan.rows > plan.columns else "LANDSCAPE"
    # A smaller image of the same plate has larger pixels.
    for keyword, written in (
        ("PixelSpacing", plan.spacing),
        ("ImagerPixelSpacing", plan.imager_spacing),
    ):
        if written:
            text = written if rows == plan.rows else f"{float(written) * plan.rows / rows:.6g}"
            setattr(ds, keyword, [text, text])
    if plan.windows:
        ds.WindowCenter, ds.WindowWidth = plan.windows
    if plan.lut:
        entries, first = plan.lut
        item = Dataset()
        item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries, first, 16])
        if "LUTExplanation" in plan.header:
            item.LUTExplanation = plan.header["LUTExplanation"]
        item.add_new("LUTData", "US", lut_data(plan).tolist())
        ds.VOILUTSequence = [item]
    return ds


def _add_identity(ds: Dataset, plan: Plan, seed: int) -> None:
    """Who, when and with what: all of it plainly invented."""
    ds.PatientName = "SYNTHETIC^PHANTOM"
    ds.PatientID = f"SYN-{seed % 10**6:06d}"
    ds.PatientBirthDate = ""
    ds.PatientSex = "F" if is_female(seed) else "M"
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "Never identified: a digital phantom"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20000101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.StudyInstanceUID = _uid(seed, "study")
    ds.SeriesInstanceUID = _uid(seed, "series")
    ds.SOPInstanceUID = _uid(seed, "image")
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyID = ds.SeriesNumber = ds.InstanceNumber = "1"
    ds.StudyDescription = "SYNTHETIC CHEST RADIOGRAPH"
    ds.Manufacturer, ds.ManufacturerModelName = "SYNTHETIC", "DIGITAL THORAX PHANTOM"
    ds.ImageComments = "Synthetic phantom, not a patient"
    if "BodyPartExamined" not in ds:
        ds.BodyPartExamined = ""
    if ds.SOPClassUID == DigitalXRayImageStorageForPresentation:
        ds.setdefault("DetectorType", "")
        ds.PositionerType = ""
        ds.AnatomicRegionSequence, ds.AcquisitionContextSequence = [], []
        ds.setdefault("ImageLaterality", "U")
        view = Dataset()
        view.CodingSchemeDesignator = "SCT"
        view.CodeValue, view.CodeMeaning = _VIEW_CODES.get(plan.view, _LATERAL_CODE)
        ds.ViewCodeSequence = [view]
    if ds.SOPClassUID == SecondaryCaptureImageStorage:
        ds.setdefault("ConversionType", "WSD")


def _uid(seed: int, what: str) -> str:
    """A UID under 2.25, the root for UUIDs: one per seed and purpose."""
    digest = hashlib.sha256(f"synthetic radiograph {seed} {what}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16])}"


def _parsed(keyword: str, text: str) -> Any:
    """An attribute's value from the text that the table has."""
    if keyword in ("BitsStored", "BitsAllocated", "HighBit", "PixelRepresentation",
                   "SmallestImagePixelValue", "LargestImagePixelValue",
                   "PixelIntensityRelationshipSign"):  # fmt: skip
        return int(text)
    return text.split("\\") if "\\" in text else text


def _pick(rng: np.random.Generator, weights: list[int]) -> int:
    """An index, drawn in proportion to the weights."""
    shares = np.asarray(weights, dtype=float)
    return int(rng.choice(len(shares), p=shares / shares.sum()))
