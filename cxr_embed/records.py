"""Encodes and decodes embeddings as TFRecord bytes, without TensorFlow.

A record file is one TFRecord frame around one serialized `tf.train.Example`:

    uint64 length | uint32 masked CRC-32C of the length | data | uint32 masked CRC-32C of the data

Formats: TensorFlow's `tfrecord` and `example.proto`, and the protocol buffers wire encoding.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import google_crc32c
import numpy as np

ID_FEATURE = "image/id"
EMBEDDING_FEATURE = "embedding"

_FRAME_OVERHEAD = 16
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5

# Start and end of a part of a message, in bytes.
Span = tuple[int, int]


class BadRecord(ValueError):
    """The bytes are not exactly one complete record with both features."""


@dataclass(frozen=True)
class Record:
    """One image's embedding.

    Attributes:
        image_id: the input's path or URI, as given or listed.
        embedding: float32 of shape (n,).
    """

    image_id: str
    embedding: np.ndarray


def encode_record(record: Record) -> bytes:
    """Returns the bytes of a `.tfrecord` file. The same record always gives the same bytes."""
    return frame(encode_example(record))


def decode_record(data: bytes) -> Record:
    """Decodes a `.tfrecord` file with exactly one record.

    Raises:
        BadRecord: the record is torn, a checksum does not match, there is more than one record, or
            a feature is missing.
    """
    return decode_example(unframe(data))


def frame(data: bytes) -> bytes:
    """Returns data in a TFRecord frame."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def unframe(framed: bytes) -> bytes:
    """Returns the data of the only frame.

    Raises:
        BadRecord: the frame is torn, a checksum does not match, or more data follows.
    """
    if len(framed) < _FRAME_OVERHEAD:
        raise BadRecord(f"{len(framed)} bytes are too few for a record")
    (length,) = struct.unpack_from("<Q", framed)
    if framed[8:12] != _masked_crc(framed[:8]):
        raise BadRecord("the checksum of the length does not match")
    if len(framed) != length + _FRAME_OVERHEAD:
        raise BadRecord(f"{len(framed)} bytes where one record needs {length + _FRAME_OVERHEAD}")
    data = framed[12:-4]
    if framed[-4:] != _masked_crc(data):
        raise BadRecord("the checksum of the data does not match")
    return data


def encode_example(record: Record) -> bytes:
    """Serializes a `tf.train.Example` with the two features, in the order of their names."""
    values = np.ascontiguousarray(record.embedding, dtype="<f4")
    if values.ndim != 1:
        raise ValueError(f"an embedding has one dimension, not {values.ndim}")
    # Feature.float_list = 2, FloatList.value = 1 (packed); Feature.bytes_list = 1.
    floats = delimited(2, delimited(1, values.tobytes()))
    # surrogateescape: the bytes of a file name that is not UTF-8 are kept.
    name = delimited(1, delimited(1, record.image_id.encode("utf-8", "surrogateescape")))
    features = b"".join(
        delimited(1, delimited(1, key.encode()) + delimited(2, feature))
        for key, feature in ((EMBEDDING_FEATURE, floats), (ID_FEATURE, name))
    )
    return delimited(1, features)


def decode_example(data: bytes) -> Record:
    """Parses a serialized `tf.train.Example` from any writer.

    Raises:
        BadRecord: the data is not an Example, or has not exactly one value of each feature.
    """
    names, floats = locate_features(data)
    return Record(
        decode_image_id(b"".join(data[slice(*span)] for span in names)),
        np.frombuffer(b"".join(data[slice(*span)] for span in floats), "<f4"),
    )


def decode_image_id(name: bytes) -> str:
    """Returns an image id as text; bytes that are not UTF-8 become surrogates."""
    return name.decode("utf-8", "surrogateescape")


def utf8_text(text: str) -> str:
    """Returns valid Unicode text; bytes that are not UTF-8 are written as escapes."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def locate_features(data: bytes) -> tuple[list[Span], list[Span]]:
    """Finds the two features in a serialized `tf.train.Example`.

    Returns:
        The span of the image id (a list of one), and the spans of the embedding's floats: one span
        if they are packed, otherwise one per float.

    Raises:
        BadRecord: the data is not an Example, or has not exactly one value of each feature.
    """
    found: dict[str, list[Span]] = {}
    try:
        for features in _fields(data, (0, len(data)), 1):
            for entry in _fields(data, features, 1):
                key = b"".join(data[slice(*span)] for span in _fields(data, entry, 1)).decode()
                found[key] = _fields(data, entry, 2)
        names = [v for part in found[ID_FEATURE] for v in _values(data, part, 1)]
        floats = [v for part in found[EMBEDDING_FEATURE] for v in _values(data, part, 2)]
    except KeyError as error:
        raise BadRecord(f"the feature {error} is missing") from error
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise BadRecord("not a serialized tf.train.Example") from error
    length = sum(end - start for start, end in floats)
    if len(names) != 1 or not length or length % 4:
        raise BadRecord("not exactly one image id and one list of floats")
    return names, floats


def _values(data: bytes, feature: Span, kind: int) -> list[Span]:
    """Returns the spans of a Feature's values; `kind` 1 is a BytesList, 2 a FloatList."""
    return [value for part in _fields(data, feature, kind) for value in _fields(data, part, 1)]


def _masked_crc(data: bytes) -> bytes:
    # TFRecord rotates and offsets the checksum, so that data may itself contain checksums.
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def delimited(number: int, payload: bytes) -> bytes:
    """Returns a length-delimited field (bytes, string or message) of a protocol buffer."""
    return bytes([number << 3 | _DELIMITED]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _fields(data: bytes, message: Span, number: int) -> list[Span]:
    """Returns the spans of the payloads of all fields `number` of one message, in order.

    A fixed 32-bit field has a span of 4 bytes, so that an unpacked float list is read like a packed
    one.
    """
    payloads: list[Span] = []
    position, stop = message
    while position < stop:
        key, position = _read_varint(data, position)
        wire_type = key & 7
        if wire_type == _VARINT:
            _, end = _read_varint(data, position)
        elif wire_type == _DELIMITED:
            length, position = _read_varint(data, position)
            end = position + length
        elif wire_type in (_FIXED32, _FIXED64):
            end = position + (4 if wire_type == _FIXED32 else 8)
        else:
            raise ValueError(f"wire type {wire_type}")
        if end > stop:
            raise ValueError("message ends too early")
        if key >> 3 == number:
            payloads.append((position, end))
        position = end
    return payloads
