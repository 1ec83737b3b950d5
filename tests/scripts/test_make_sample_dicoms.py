"""What a folder of sample radiographs promises to those who build on it."""

from __future__ import annotations

import functools
import io
from collections import Counter
from collections.abc import Callable

import cv2
import make_sample_dicoms as samples
import numpy as np
import pydicom
import pytest
from phantom import encoders, headers
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import apply_voi_lut

SMALL = {"rows": 72, "columns": 60}
HEADERS = 500


def _saved(ds: FileDataset) -> FileDataset:
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return pydicom.dcmread(stream)


@functools.cache
def _plain(seed: int, bits: int | None = None) -> FileDataset:
    """The uncompressed file that a compressed one is held against."""
    return samples.make_dataset(seed, **SMALL, **({"BitsStored": bits} if bits else {}))


@pytest.fixture(scope="module")
def many() -> list[Dataset]:
    return [samples.make_header(seed) for seed in range(HEADERS)]


def _expected_share(fits: Callable[[dict], bool]) -> float:
    kinds = headers.archetypes()
    return sum(k["count"] for k in kinds if fits(k)) / sum(k["count"] for k in kinds)


# The distribution of the headers


@pytest.mark.parametrize(
    ("fits_file", "fits_kind", "real"),
    [
        (
            lambda ds: ds.PhotometricInterpretation == "MONOCHROME1",
            lambda k: k["header"]["PhotometricInterpretation"] == "MONOCHROME1",
            0.480,
        ),
        (lambda ds: "VOILUTSequence" in ds, lambda k: "luts" in k, 0.407),
        (lambda ds: ds.BitsStored == 15, lambda k: k["header"]["BitsStored"] == "15", 0.198),
        (
            lambda ds: ds.get("PresentationLUTShape") == "INVERSE",
            lambda k: k["header"].get("PresentationLUTShape") == "INVERSE",
            0.077,
        ),
        (
            lambda ds: (
                "WindowCenter" in ds and ds["WindowCenter"].VM == 1 and ds.WindowCenter % 1 == 0.5
            ),
            lambda k: "windows" in k and k["windows"][0][1][0].endswith(".500"),
            0.121,
        ),
        (lambda ds: "RescaleSlope" in ds, lambda k: "RescaleSlope" in k["header"], 0.606),
    ],
    ids=["MONOCHROME1", "VOI LUT", "15 bits", "INVERSE", "fractional window", "rescale"],
)
def test_traits_are_as_common_as_in_real_files(many, fits_file, fits_kind, real) -> None:
    share = sum(map(fits_file, many)) / len(many)
    four_sigma = 4 * (real * (1 - real) / len(many)) ** 0.5

    assert _expected_share(fits_kind) == pytest.approx(real, abs=0.01)
    assert share == pytest.approx(real, abs=four_sigma)


def test_views_are_as_common_as_in_real_files(many) -> None:
    views = Counter(ds.ViewPosition for ds in many)
    lateral = sum(views[v] for v in ("LL", "RL", "LATERAL", "LARGE LATERAL"))

    assert views[""] / len(many) == pytest.approx(0.346, abs=0.08)
    assert lateral / len(many) == pytest.approx(0.116, abs=0.055)


def test_traits_go_together_as_in_real_files(many) -> None:
    for ds in many:
        if ds.get("PresentationLUTShape") == "INVERSE":
            assert ds.PhotometricInterpretation == "MONOCHROME1"
            assert ds.BitsStored == 15
        if ds.get("RescaleType") == "LOG_E REL":
            assert "VOILUTSequence" in ds and "WindowCenter" not in ds


def test_sizes_are_those_of_real_films(many) -> None:
    areas = [ds.Rows * ds.Columns / 1e6 for ds in many]

    assert min(areas) > 4 and max(areas) < 16
    assert 6 < np.median(areas) < 9.5


# Who the files are about


def test_nobody_could_take_the_patient_for_real(many) -> None:
    for seed, ds in enumerate(many[:50]):
        assert ds.PatientName == "SYNTHETIC^PHANTOM"
        assert ds.PatientID == f"SYN-{seed:06d}"
        assert ds.PatientBirthDate == ""
        assert ds.StudyDate == "20000101"
        assert ds.Manufacturer == "SYNTHETIC"
        assert all(
            uid.startswith("2.25.") and uid.is_valid
            for uid in (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
        )


def test_uids_are_unique(many) -> None:
    assert len({ds.SOPInstanceUID for ds in many}) == len(many)


# Files


def test_same_seed_same_bytes_whatever_the_number_of_files_and_processes(tmp_path) -> None:
    few = samples.write_samples(tmp_path / "a", 3, seed=5, size=(40, 36))
    more = samples.write_samples(tmp_path / "b", 6, seed=5, size=(40, 36), workers=2)
    other = samples.write_samples(tmp_path / "c", 3, seed=6, size=(40, 36))

    assert [p.name for p in few] == ["SYN-000001.dcm", "SYN-000002.dcm", "SYN-000003.dcm"]
    assert [p.read_bytes() for p in few] == [p.read_bytes() for p in more[:3]]
    assert [p.read_bytes() for p in few] != [p.read_bytes() for p in other]


def test_files_are_whole_and_consistent(tmp_path) -> None:
    for path in samples.write_samples(tmp_path, 14, size=(40, 36)):
        ds = pydicom.dcmread(path)
        pixels = ds.pixel_array
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert ds.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID
        assert pixels.shape == (ds.Rows, ds.Columns) == (40, 36)
        assert pixels.dtype.itemsize * 8 == ds.BitsAllocated
        assert ds.HighBit == ds.BitsStored - 1 < ds.BitsAllocated
        assert pixels.max() < 2**ds.BitsStored
        assert pixels.max() > pixels.min()
        for keyword in ("Modality", "StudyTime", "AccessionNumber", "StudyID", "PatientSex"):
            assert keyword in ds


@pytest.mark.parametrize("name", [n for n in encoders.WRITABLE if n not in encoders.LOSSY])
def test_lossless_syntaxes_keep_every_pixel(name) -> None:
    ds = _saved(samples.make_dataset(3, **SMALL, transfer_syntax=name))
    plain = _plain(3)

    assert ds.file_meta.TransferSyntaxUID == encoders.SYNTAXES[name]
    assert np.array_equal(ds.pixel_array, plain.pixel_array)
    assert ds.get("LossyImageCompression", "00") == "00"


@pytest.mark.parametrize("name", encoders.LOSSY)
def test_lossy_syntaxes_nearly_do_and_say_so(name) -> None:
    ds = _saved(samples.make_dataset(3, **SMALL, transfer_syntax=name))
    plain = _plain(3, ds.BitsStored)
    error = np.abs(ds.pixel_array.astype(int) - plain.pixel_array.astype(int))

    assert ds.file_meta.TransferSyntaxUID == encoders.SYNTAXES[name]
    assert error.mean() < 0.02 * 2**ds.BitsStored
    assert error.max() > 0
    assert ds.LossyImageCompression == "01"
    assert float(ds.LossyImageCompressionRatio) > 1
    assert ds.LossyImageCompressionMethod.startswith("ISO_")


@pytest.mark.parametrize("name", ["rle", "jpeg_lossless", "jpegls", "j2k_lossless", "big_endian"])
@pytest.mark.parametrize("bits", [10, 15, 16])
def test_every_depth_survives_compression(name, bits) -> None:
    made = samples.make_dataset(4, **SMALL, transfer_syntax=name, BitsStored=bits)

    assert np.array_equal(_saved(made).pixel_array, _plain(4, bits).pixel_array)


def test_a_syntax_without_an_encoder_is_refused_by_name() -> None:
    uid = "1.2.840.10008.1.2.4.51"

    with pytest.raises(encoders.NoEncoder, match=f"jpeg_extended \\({uid}\\)"):
        samples.make_dataset(0, **SMALL, transfer_syntax=uid)


def test_the_window_or_lut_in_the_header_gives_the_picture_back() -> None:
    seen = set()
    for seed in range(60):
        plan = samples.make_header(seed)
        kind = (plan.PhotometricInterpretation, "VOILUTSequence" in plan, "WindowCenter" in plan)
        if kind in seen:
            continue
        seen.add(kind)
        ds = _saved(samples.make_dataset(seed, **SMALL, ViewPosition="PA", PatientOrientation=None))
        shown = apply_voi_lut(ds.pixel_array, ds, prefer_lut=kind[1]).astype(float)
        shown = (shown - shown.min()) / np.ptp(shown)
        if kind[0] == "MONOCHROME1":
            shown = 1 - shown
        drawn = samples.make_radiograph(seed, **SMALL)
        flip = min(np.abs(shown - drawn).mean(), np.abs(shown[:, ::-1] - drawn).mean())
        assert flip < 0.06, kind
    assert len(seen) >= 4


# The picture


def test_a_frontal_film_has_dark_lungs_around_a_bright_middle() -> None:
    for seed in range(4):
        film = samples.make_radiograph(seed, rows=100, columns=100)
        lungs = np.r_[film[25:45, 22:34].ravel(), film[25:45, 68:78].ravel()]
        assert film.dtype == np.float32 and film.min() >= 0 and film.max() <= 1
        assert np.median(lungs) < 0.55 < np.median(film[35:60, 46:54])
        # The heart lies to the patient's left, which is on the right.
        assert film[52:62, 56:64].mean() > film[52:62, 32:40].mean()


@pytest.mark.parametrize("finding", samples.FINDINGS)
@pytest.mark.parametrize("view", ["PA", "LL"])
def test_a_finding_changes_one_place_of_the_same_film(finding, view) -> None:
    healthy = samples.make_radiograph(8, rows=160, columns=130, view=view)
    sick = samples.make_radiograph(8, rows=160, columns=130, view=view, finding=finding)

    change = cv2.GaussianBlur(sick - healthy, (0, 0), 2)
    assert change.max() > 0.03
    assert np.median(np.abs(change)) < 0.05


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 300), (300, 2)])
def test_even_a_film_of_a_few_pixels_is_drawn(shape) -> None:
    film = samples.make_radiograph(1, rows=shape[0], columns=shape[1], finding="opacity")

    assert film.shape == shape
    assert np.isfinite(film).all()


def test_size_does_not_change_the_person() -> None:
    small = samples.make_radiograph(2, rows=120, columns=100)
    large = cv2.resize(
        samples.make_radiograph(2, rows=480, columns=400), (100, 120), interpolation=cv2.INTER_AREA
    )
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.97


# Overrides and flags


def test_overrides_change_header_and_pixels_together() -> None:
    first = samples.make_dataset(1, **SMALL, PhotometricInterpretation="MONOCHROME2", BitsStored=8)
    turned = samples.make_dataset(1, **SMALL, PhotometricInterpretation="MONOCHROME1", BitsStored=8)
    signed = samples.make_dataset(1, **SMALL, BitsStored=12, PixelRepresentation=1)
    bare = samples.make_dataset(1, **SMALL, PixelData=None, ViewPosition=None, PatientID="X")

    assert first.pixel_array.dtype == np.uint8
    assert np.corrcoef(first.pixel_array.ravel(), turned.pixel_array.ravel())[0, 1] < -0.95
    assert signed.pixel_array.min() < 0
    assert "PixelData" not in bare and "ViewPosition" not in bare and bare.PatientID == "X"


@pytest.mark.parametrize(
    "bad",
    [
        {"BitsStored": 17},
        {"PhotometricInterpretation": "RGB"},
        {"rows": 0},
        {"finding": "gout"},
        {"transfer_syntax": "gif"},
        {"transfer_syntax": "jpeg", "BitsStored": 12},
        {"transfer_syntax": "j2k", "rows": 31},
    ],
)
def test_the_impossible_is_refused(bad) -> None:
    with pytest.raises(ValueError, match=r"must|unknown|stores|needs"):
        samples.make_dataset(0, **(SMALL | bad))


def test_command_line_writes_files_and_labels(tmp_path, capsys) -> None:
    labels = tmp_path / "labels.csv"
    code = samples.main(
        ["--n", "3", "--output", str(tmp_path / "out"), "--tiny", "--labels", str(labels),
         "--transfer_syntax", "rle", "--finding_rate", "1"]
    )  # fmt: skip

    assert code == 0
    assert "3 files" in capsys.readouterr().out
    lines = labels.read_text().splitlines()
    assert lines[0] == "file,finding,transfer_syntax" and len(lines) == 4
    ds = pydicom.dcmread(tmp_path / "out" / "SYN-000002.dcm")
    assert (ds.Rows, ds.Columns) == samples.TINY
    name, finding, syntax = lines[2].split(",")
    assert name == "SYN-000002.dcm" and syntax == "rle"
    assert ds.ImageComments.endswith(f"finding: {finding}")


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--transfer_syntax", "gif"], "gif"),
        (["--transfer_syntax", "jpeg_extended"], "jpeg_extended"),
        (["--n", "-1"], "n and seed"),
        (["--tiny", "--size", "10x10"], "--tiny"),
    ],
)
def test_bad_flags_end_in_one_line_and_code_2(tmp_path, capsys, flags, word) -> None:
    code = samples.main(["--output", str(tmp_path / "out"), *flags])

    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and word in error


@pytest.mark.parametrize("size", ["10", "0x5", "axb", "-3x4"])
def test_a_malformed_size_ends_in_code_2(tmp_path, capsys, size) -> None:
    with pytest.raises(SystemExit) as stopped:
        samples.main(["--output", str(tmp_path), f"--size={size}"])

    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and "ROWSxCOLS" in error
