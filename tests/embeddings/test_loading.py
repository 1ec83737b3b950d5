"""Several sets of embeddings read as one, and the images that are in two of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import cxr_embed
from cxr_embed.elements import CONFIG_NAME
from cxr_embed.embeddings.collection import Embeddings
from cxr_embed.embeddings.loading import merge
from cxr_embed.errors import UsageError
from cxr_embed.records import Record, encode_record

VALUES = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


def _write(folder: Path, rows: list[int], values: np.ndarray = VALUES) -> str:
    folder.mkdir(parents=True)
    for row in rows:
        record = Record(f"{folder.name}/im{row}.dcm", values[row])
        (folder / f"im{row}.tfrecord").write_bytes(encode_record(record))
    return str(folder)


def test_a_list_of_sets_is_one_set_in_the_order_given(tmp_path: Path) -> None:
    later, earlier = _write(tmp_path / "b", [0, 1]), _write(tmp_path / "a", [2, 3, 4])
    found = cxr_embed.load_embeddings([later, Path(earlier)])
    assert found.ids == ["im0", "im1", "im2", "im3", "im4"]
    assert found.image_ids[:3] == ["b/im0.dcm", "b/im1.dcm", "a/im2.dcm"]
    np.testing.assert_array_equal(found.values, VALUES[:5])
    assert cxr_embed.load_embeddings([later]).ids == ["im0", "im1"]
    some = cxr_embed.load_embeddings([later, earlier], ids=["im3", "im1"])
    assert some.ids == ["im1", "im3"]
    with pytest.raises(UsageError, match="has no embedding of 1 of 2 ids, such as im9"):
        cxr_embed.load_embeddings([later, earlier], ids=["im3", "im9"])


def test_an_image_that_two_sets_hold_alike_is_taken_once(tmp_path: Path) -> None:
    """Made again on another machine, it differs by rounding."""
    first = _write(tmp_path / "a", [0, 1])
    second = _write(tmp_path / "b", [1, 2], VALUES * np.float32(1 + 1e-5))
    found = cxr_embed.load_embeddings([first, second])
    assert found.image_ids == ["a/im0.dcm", "a/im1.dcm", "b/im2.dcm"]
    np.testing.assert_array_equal(found.values[1], VALUES[1])


def test_an_image_with_two_embeddings_is_an_error_that_names_both(tmp_path: Path) -> None:
    first, second = _write(tmp_path / "a", [0, 1]), _write(tmp_path / "b", [1, 2], -VALUES)
    with pytest.raises(UsageError) as caught:
        cxr_embed.load_embeddings([first, second])
    message = str(caught.value)
    assert (
        f"im1 has different embeddings in {first} (a/im1.dcm) and {second} (b/im1.dcm)" in message
    )


def test_sets_of_different_models_are_refused(tmp_path: Path) -> None:
    first, second = _write(tmp_path / "a", [0]), _write(tmp_path / "b", [1], VALUES[:, :3])
    with pytest.raises(UsageError, match=r"of 4 floats, .* of 3: they are of different models"):
        cxr_embed.load_embeddings([first, second])


def test_file_names_that_repeat_within_a_set_do_not_identify_an_image() -> None:
    """An output with folders may hold IM1.dcm of many patients; then paths are compared."""
    mirrored = Embeddings(["IM1", "IM1"], ["p1/IM1.dcm", "p2/IM1.dcm"], VALUES[:2])
    other = Embeddings(["IM1", "IM2"], ["p3/IM1.dcm", "p2/IM1.dcm"], VALUES[[2, 1]])
    found, set_of_row = merge(["a", "b"], [mirrored, other])
    assert found.image_ids == ["p1/IM1.dcm", "p2/IM1.dcm", "p3/IM1.dcm"]
    assert set_of_row.tolist() == [0, 0, 1]


def test_sets_that_were_made_with_different_settings_are_refused(tmp_path: Path) -> None:
    sets = [_write(tmp_path / name, [row]) for row, name in enumerate("ab")]
    for number, folder in enumerate(sets):
        config = {"model_sha256": str(number), "embedding_size": 4}
        Path(folder, CONFIG_NAME).write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"different settings .model_sha256."):
        cxr_embed.load_embeddings(sets)
    assert len(cxr_embed.load_embeddings(sets, mixed_settings=True)) == 2
