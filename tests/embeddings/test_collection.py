"""Embeddings read back, and what can be asked of them."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from written import SIZE, mimic_path, values, write_output

import cxr_embed
from cxr_embed.embeddings import collection as module
from cxr_embed.embeddings.collection import Embeddings
from cxr_embed.embeddings.loading import load_embeddings
from cxr_embed.errors import UsageError
from cxr_embed.records import Record, encode_record

PATHS = [mimic_path(number) for number in range(12)]


@pytest.fixture(name="output")
def _output(tmp_path: Path) -> Path:
    write_output(tmp_path / "out", PATHS, values(12))
    return tmp_path / "out"


def test_a_folder_of_records_comes_back_in_the_order_of_its_files(output: Path) -> None:
    loaded = load_embeddings(output)
    assert loaded.ids == [Path(path).stem for path in PATHS]
    assert loaded.image_ids == PATHS
    assert loaded.values.dtype == np.float32
    np.testing.assert_array_equal(loaded.values, values(12))
    assert loaded.values.flags.writeable


def test_more_records_than_one_part_holds(tmp_path: Path) -> None:
    paths = [f"{number:05d}.dcm" for number in range(2500)]
    write_output(tmp_path, paths, values(2500, 3))
    loaded = load_embeddings(tmp_path)
    assert loaded.image_ids == paths
    np.testing.assert_array_equal(loaded.values, values(2500, 3))


def test_a_large_matrix_is_allocated_on_large_pages_all_the_same(tmp_path: Path) -> None:
    write_output(tmp_path, [f"{n:03d}.dcm" for n in range(300)], values(300, 4096))
    loaded = load_embeddings(str(tmp_path))
    assert loaded.values.nbytes > 1 << 22
    np.testing.assert_array_equal(loaded.values, values(300, 4096))
    loaded.values[:] += 1


def test_folders_are_searched_and_the_runs_tables_are_left_out(tmp_path: Path) -> None:
    write_output(tmp_path, PATHS, values(12), mirror=True)
    (tmp_path / "_runs/x").mkdir(parents=True)
    (tmp_path / "_runs/x/y.tfrecord").write_bytes(b"not a record")
    assert load_embeddings(tmp_path).image_ids == PATHS


def test_one_record_is_enough(output: Path) -> None:
    loaded = load_embeddings(output / f"{Path(PATHS[3]).stem}.tfrecord")
    assert loaded.image_ids == [PATHS[3]]


def test_records_of_other_programs_are_read_too(tmp_path: Path) -> None:
    import tensorflow as tf

    for number in range(3):
        example = tf.train.Example()
        example.features.feature["image/id"].bytes_list.value[:] = [b"a/%d.dcm" % number]
        example.features.feature["embedding"].float_list.value[:] = [number, 2, 3]
        with tf.io.TFRecordWriter(str(tmp_path / f"{number}.tfrecord")) as writer:
            writer.write(example.SerializeToString())
    loaded = load_embeddings(tmp_path)
    assert loaded.image_ids == ["a/0.dcm", "a/1.dcm", "a/2.dcm"]
    assert loaded.values.tolist() == [[0, 2, 3], [1, 2, 3], [2, 2, 3]]


def test_only_the_records_asked_for_are_opened(output: Path) -> None:
    wanted = {Path(PATHS[7]).stem, Path(PATHS[2]).stem}
    for path in PATHS[8:]:
        (output / f"{Path(path).stem}.tfrecord").write_bytes(b"torn")
    assert load_embeddings(output, wanted).image_ids == [PATHS[2], PATHS[7]]


def test_an_id_that_is_not_there_is_an_error_unless_said_otherwise(output: Path) -> None:
    wanted = [Path(PATHS[2]).stem, "unheard-of"]
    with pytest.raises(UsageError, match="no embedding of 1 of 2 ids, such as unheard-of"):
        load_embeddings(output, wanted)
    assert len(load_embeddings(output, wanted, missing="ignore")) == 1
    assert load_embeddings(output, [], missing="ignore").values.shape == (0, SIZE)


@pytest.mark.parametrize("damage", ["torn", "sizes", "unreadable", "features"])
def test_what_cannot_be_used_is_named(output: Path, damage: str) -> None:
    path = output / f"{Path(PATHS[5]).stem}.tfrecord"
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "sizes":
        path.write_bytes(encode_record(Record(PATHS[5], np.ones(3, np.float32))))
    elif damage == "features":
        from cxr_embed.records import frame

        path.write_bytes(frame(b""))
    else:
        path.unlink()
        path.symlink_to("nowhere")
    with pytest.raises(UsageError, match=path.name):
        load_embeddings(output)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no embeddings in"):
        load_embeddings(tmp_path)
    with pytest.raises(UsageError, match="no embeddings in"):
        load_embeddings(tmp_path / "missing")


def test_neither_tensorflow_nor_pandas_is_imported(output: Path) -> None:
    code = (
        f"import cxr_embed, sys; e = cxr_embed.load_embeddings({str(output)!r}); "
        "e.nearest(e.ids[0]); "
        "assert not {'tensorflow', 'apache_beam', 'pandas', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nearest_is_exact_and_leaves_the_image_itself_out(output: Path) -> None:
    loaded = cxr_embed.load_embeddings(output)
    unit = values(12) / np.linalg.norm(values(12), axis=1, keepdims=True)
    expected = np.argsort(-(unit @ unit[4]))
    expected = expected[expected != 4]
    found = loaded.nearest(loaded.ids[4], 5)
    assert [neighbour.row for neighbour in found] == expected[:5].tolist()
    assert found[0].cosine == pytest.approx(float(unit[expected[0]] @ unit[4]), abs=1e-6)
    assert (found[0].dicom_id, found[0].image_id) == (
        loaded.ids[expected[0]], loaded.image_ids[expected[0]],
    )  # fmt: skip
    assert len(loaded.nearest(loaded.ids[4], 99)) == 11
    assert loaded.nearest_to(values(12)[4], 1)[0].row == 4


def test_an_image_answers_to_all_its_names() -> None:
    loaded = Embeddings(["x", "y"], ["gs://b/p/x.dcm", "gs://b/p/y.dcm"], values(2))
    for key in ("y", "y.dcm", "gs://b/p/y.dcm", "y.tfrecord", "p/y.png"):
        assert loaded.row_of(key) == 1
    for key in ("z", "other/y.dcm"):
        with pytest.raises(UsageError, match=f"no embedding of {key}"):
            loaded.row_of(key)


def test_a_name_that_two_images_have_is_refused() -> None:
    loaded = Embeddings(["x", "x"], ["1/x.dcm", "2/x.dcm"], values(2))
    assert loaded.row_of("2/x.dcm") == 1
    with pytest.raises(UsageError, match=r"x names several images, 1/x.dcm and 2/x.dcm"):
        loaded.nearest("x")


def test_a_vector_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match="among embeddings of 8 floats"):
        Embeddings(["x"], ["x.dcm"], values(1)).nearest_to(np.ones(3))


def test_normalised_rows_have_length_one_and_zeros_stay() -> None:
    loaded = Embeddings(["x", "y"], ["x", "y"], np.array([[3, 4], [0, 0]], np.float32))
    unit = loaded.normalised()
    np.testing.assert_allclose(unit.values, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert loaded.values[0, 0] == 3


def test_take_copies_rows_in_the_order_given() -> None:
    loaded = Embeddings(["x", "y", "z"], ["1", "2", "3"], values(3))
    assert loaded.take([2, 0]).ids == ["z", "x"]
    assert loaded.take(np.array([False, True, False])).image_ids == ["2"]
    np.testing.assert_array_equal(loaded.take([2]).values, loaded.values[2:])


def test_to_pandas_has_the_packed_columns_and_shares_the_matrix(output: Path) -> None:
    loaded = load_embeddings(output)
    frame = loaded.to_pandas()
    assert list(frame.columns) == ["dicom_id", "image_id", "subject_id", "study_id", "embedding"]
    assert frame.subject_id[5] == 10_000_001
    assert frame.study_id[5] == 50_000_002
    assert np.shares_memory(frame.embedding[5], loaded.values)
    plain = Embeddings(["x"], ["somewhere/x.dcm"], values(1)).to_pandas()
    assert plain.subject_id.isna().all()


def test_join_gives_pairs_and_both_kinds_of_leftovers(output: Path) -> None:
    import pandas as pd

    labels = pd.DataFrame({"dicom_id": [Path(PATHS[3]).stem, "gone", Path(PATHS[1]).stem],
                           "effusion": [1, 0, 0]})  # fmt: skip
    joined = load_embeddings(output).join(labels)
    assert joined.embeddings.image_ids == [PATHS[1], PATHS[3]]
    assert joined.labels.effusion.tolist() == [0, 1]
    assert joined.unmatched_labels == ["gone"]
    assert len(joined.unlabelled) == 10
    assert str(joined) == (
        "2 embeddings have labels (by dicom_id), 10 have none; 1 labels belong to no embedding"
    )
    np.testing.assert_array_equal(joined.embeddings.values[1], values(12)[3])


def test_join_reads_a_csv_and_studies(output: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv.gz"
    import pandas as pd

    pd.DataFrame({"subject_id": [10_000_000, 10_000_009], "study_id": [50_000_001, 50_000_099],
                  "Edema": [1.0, None]}).to_csv(table, index=False)  # fmt: skip
    joined = load_embeddings(output).join(table, on="study_id")
    assert joined.embeddings.image_ids == [PATHS[2], PATHS[3]]
    assert joined.labels.Edema.tolist() == [1, 1]
    assert joined.unmatched_labels == ["50000099"]
    with pytest.raises(UsageError, match="no column effusion"):
        load_embeddings(output).join(table, on="effusion")


def test_the_examples_in_the_docstrings_hold() -> None:
    done = doctest.testmod(module)
    assert done.attempted and not done.failed
