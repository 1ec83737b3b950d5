"""Records, against TensorFlow and against damage."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_embed.records import (
    BadRecord,
    Record,
    decode_example,
    decode_record,
    encode_record,
    unframe,
)

RECORD = Record("files/p10/x.dcm", np.arange(4096, dtype=np.float32))


def test_tensorflow_reads_what_we_write(tmp_path: Path) -> None:
    import tensorflow as tf

    path = tmp_path / "x.tfrecord"
    path.write_bytes(encode_record(RECORD))
    spec = {
        "image/id": tf.io.FixedLenFeature([], tf.string),
        "embedding": tf.io.FixedLenFeature([4096], tf.float32),
    }
    parsed = [tf.io.parse_single_example(r, spec) for r in tf.data.TFRecordDataset(str(path))]
    assert len(parsed) == 1
    assert set(tf.train.Example.FromString(unframe(path.read_bytes())).features.feature) == set(
        spec
    )
    assert parsed[0]["image/id"].numpy() == b"files/p10/x.dcm"
    np.testing.assert_array_equal(parsed[0]["embedding"].numpy(), RECORD.embedding)


def test_we_read_what_tensorflow_writes(tmp_path: Path) -> None:
    import tensorflow as tf

    example = tf.train.Example()
    example.features.feature["image/id"].bytes_list.value[:] = [b"a/b.dcm"]
    example.features.feature["embedding"].float_list.value[:] = [1.5, -2.0]
    example.features.feature["image/format"].bytes_list.value[:] = [b"png"]
    path = str(tmp_path / "x.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(example.SerializeToString())
    record = decode_record(Path(path).read_bytes())
    assert record.image_id == "a/b.dcm"
    assert record.embedding.tolist() == [1.5, -2.0]


def test_unpacked_floats_are_read_too() -> None:
    value = b"".join(b"\x0d" + np.float32(v).tobytes() for v in (1, 2, 3))
    floats = b"\x12" + bytes([len(value)]) + value
    entry = b"\x0a\x09embedding\x12" + bytes([len(floats)]) + floats
    name = b"\x0a\x08image/id\x12\x05\x0a\x03\x0a\x01x"
    features = b"".join(b"\x0a" + bytes([len(e)]) + e for e in (entry, name))
    record = decode_example(b"\x0a" + bytes([len(features)]) + features)
    assert record.embedding.tolist() == [1, 2, 3]


@given(st.text(), st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=300))
def test_round_trip(image_id: str, values: list[float]) -> None:
    data = encode_record(Record(image_id.encode("utf-8", "replace").decode(), np.float32(values)))
    record = decode_record(data)
    np.testing.assert_array_equal(record.embedding, np.float32(values))
    assert encode_record(record) == data


def test_a_file_name_that_is_not_utf8_keeps_its_bytes() -> None:
    name = b"radio\xff.dcm".decode("utf-8", "surrogateescape")
    data = encode_record(Record(name, np.ones(3, np.float32)))
    assert b"radio\xff.dcm" in data
    assert decode_record(data).image_id == name


@given(st.data())
def test_any_change_of_a_byte_is_noticed(data: st.DataObject) -> None:
    good = bytearray(encode_record(Record("x", np.ones(8, np.float32))))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadRecord):
        decode_record(bytes(good))


@pytest.mark.parametrize("cut", [0, 5, 15, 100, 16_000])
def test_a_torn_record_is_noticed(cut: int) -> None:
    with pytest.raises(BadRecord):
        decode_record(encode_record(RECORD)[:cut])


def test_two_records_in_one_file_are_not_one() -> None:
    with pytest.raises(BadRecord):
        decode_record(encode_record(RECORD) * 2)


@given(st.binary(max_size=200))
def test_rubbish_is_never_anything_but_a_bad_record(data: bytes) -> None:
    with contextlib.suppress(BadRecord):
        decode_example(data)
