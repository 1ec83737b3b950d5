"""Many records of one kind, decoded quickly: the first by parsing, the rest by its template.

Records that one program wrote differ in their floats and in their image id, and where both lie
follows from the record's length. So once one of a length has been parsed, the others are compared
with it byte by byte outside of the two, instead of being parsed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cxr_embed.records import (
    BadRecord,
    Span,
    decode_example,
    decode_image_id,
    locate_features,
    unframe,
)


class _Template(NamedTuple):
    """All of a serialized example but its image id and its floats."""

    name: slice
    floats: slice
    fixed: tuple[tuple[slice, bytes], ...]


class RecordDecoder:
    """Decodes records straight into rows of a matrix. Not for several threads at a time.

    Args:
        embedding_size: floats in an embedding.
    """

    def __init__(self, embedding_size: int) -> None:
        self.embedding_size = embedding_size
        self._templates: dict[int, _Template] = {}

    def decode(self, framed: bytes, row: memoryview) -> str:
        """Decodes a file that holds exactly one record.

        Args:
            framed: the file's bytes.
            row: where the floats go, as bytes: 4 * embedding_size of them.

        Returns:
            The image id.

        Raises:
            WrongSize: a valid record with another number of floats.
            BadRecord: torn, checksum mismatch, more than one record, or a feature missing.
        """
        return self.decode_example(unframe(framed), row)

    def decode_example(self, data: bytes, row: memoryview) -> str:
        """Decodes a serialized `tf.train.Example`; arguments and errors as in `decode`."""
        template = self._templates.get(len(data))
        if template is None or any(data[place] != same for place, same in template.fixed):
            return self._parse(data, row)
        row[:] = memoryview(data)[template.floats]
        return decode_image_id(data[template.name])

    def _parse(self, data: bytes, row: memoryview) -> str:
        record = decode_example(data)
        if len(record.embedding) != self.embedding_size:
            raise WrongSize(len(record.embedding))
        names, floats = locate_features(data)
        if len(floats) == 1:
            self._templates[len(data)] = _template(data, names[0], floats[0])
        row[:] = record.embedding.view(np.uint8).data
        return record.image_id


class WrongSize(BadRecord):
    """A valid record whose embedding has another size than its neighbours'."""

    def __init__(self, size: int) -> None:
        super().__init__(f"an embedding of {size} floats")
        self.size = size


def _template(data: bytes, name: Span, floats: Span) -> _Template:
    first, second = sorted((name, floats))
    fixed = (
        slice(0, first[0]),
        slice(first[1], second[0]),
        slice(second[1], len(data)),
    )
    return _Template(slice(*name), slice(*floats), tuple((place, data[place]) for place in fixed))
