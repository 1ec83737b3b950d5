"""A trial measures a sample and leaves no trace; its estimate is arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import as_bytes, make_dicom, make_jpeg2000

from cxr_embed.elements import ImageRef
from cxr_embed.errors import UsageError
from cxr_embed.models import ModelSettings
from cxr_embed.models.sharing import shared
from cxr_embed.runs.plan import Job
from cxr_embed.runs.trial import Rate, Trial, _read_one, run_trial, sample


def trial(reading: float, model: float, writing: float) -> Trial:
    return Trial(Rate(10, 10 * reading), Rate(10, 10 * model), Rate(10, 10 * writing), 1e6, 2)


def test_on_shared_cores_reading_and_model_add_up() -> None:
    assert trial(0.02, 0.1, 0.001).seconds_each(True) == pytest.approx(0.121)


def test_beside_an_accelerator_they_overlap() -> None:
    assert trial(0.02, 0.1, 0.001).seconds_each(False) == pytest.approx(0.101)


@pytest.mark.parametrize(
    ("parts", "name"),
    [((3, 2, 1), "reading"), ((1, 3, 2), "model"), ((1, 2, 3), "writing")],
)
def test_the_slowest_part_is_the_one_to_change(parts: tuple[float, ...], name: str) -> None:
    assert trial(*parts).largest_part() == name


def test_another_engine_counts_from_1_2_times_the_speed() -> None:
    measured = trial(0.1, 1.0, 0.1)
    assert measured.faster_engine() is None
    measured.others["slow"] = Rate(10, 9.0)
    assert measured.faster_engine() is None
    measured.others["fast"] = Rate(10, 8.0)
    assert measured.faster_engine() == "fast"


def test_a_sample_is_from_all_over_the_list() -> None:
    refs = [ImageRef.of(f"/{number:04d}.dcm") for number in range(1000)]
    chosen = sample(refs, 100)
    assert len({ref.path for ref in chosen}) == 100
    numbers = [int(ref.dicom_id) for ref in chosen[:20]]
    assert min(numbers) < 250
    assert max(numbers) > 750


def job(folder: Path, tiny_model: Path, output: Path) -> Job:
    refs = [ImageRef.of(str(path)) for path in sorted(folder.iterdir())]
    return Job(refs, str(output), ModelSettings(str(tiny_model)))


def test_it_leaves_nothing_and_counts_what_fails(tmp_path: Path, tiny_model: Path) -> None:
    images = tmp_path / "in"
    images.mkdir()
    for number in range(4):
        (images / f"{number}.dcm").write_bytes(make_dicom())
    (images / "bad.dcm").write_bytes(b"no image at all")
    output = tmp_path / "out"
    output.mkdir()
    settings = job(images, tiny_model, output)
    found = run_trial(settings, shared(settings.model), 2, 0.2, lambda line: None)
    assert found.reading.count == 4
    assert found.not_embedded == {"not_an_image": 1}
    assert found.bytes_each == len(make_dicom())
    assert found.model.count > 0
    assert found.writing.count > 0
    assert not list(output.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_a_folder_without_a_readable_image_is_an_error(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "bad.dcm").write_bytes(b"no image at all")
    settings = job(tmp_path, tiny_model, tmp_path)
    with pytest.raises(UsageError, match="none of 1 sampled images was read: 1 not_an_image"):
        run_trial(settings, shared(settings.model), 1, 0.2, lambda line: None)


def test_images_are_decoded_as_decode_scale_says(tmp_path: Path, tiny_model: Path) -> None:
    images = tmp_path / "in"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 4096, (64, 64), np.uint16)
    (images / "0.dcm").write_bytes(as_bytes(make_jpeg2000(pixels, 12)))
    whole = job(images, tiny_model, tmp_path)
    reduced = replace(whole, decode_scale="auto")
    model = shared(whole.model)
    first, second = (_read_one(each, each.refs[0], model)[0] for each in (whole, reduced))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
