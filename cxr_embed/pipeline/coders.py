"""How elements are encoded where a runner moves them between workers or stages.

The steps are fused, so radiographs and fitted images are hardly ever encoded. But runners estimate
the size of some elements, which for other coders means to pickle them: here it is an addition.
"""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, ClassVar

import apache_beam as beam
import numpy as np

from cxr_embed.elements import Embedding, ImageRef
from cxr_embed.radiograph import Radiograph

_OVERHEAD = 200


class FieldsCoder(beam.coders.Coder):
    """A dataclass as the tuple of its fields: without names of modules and fields, and quick."""

    type_: ClassVar[type[Any]]

    def encode(self, value: Any) -> bytes:
        fields = tuple(getattr(value, f.name) for f in dataclasses.fields(self.type_))
        return pickle.dumps(fields, protocol=5)

    def decode(self, encoded: bytes) -> Any:
        return self.type_(*pickle.loads(encoded))

    def is_deterministic(self) -> bool:
        return False

    def estimate_size(self, value: Any) -> int:
        return _OVERHEAD + array_bytes(value)

    def to_type_hint(self) -> Any:
        return self.type_


class ImageRefCoder(FieldsCoder):
    """Encodes `ImageRef`."""

    type_ = ImageRef

    def is_deterministic(self) -> bool:
        return True


class RadiographCoder(FieldsCoder):
    """Encodes `Radiograph`, pixels uncompressed."""

    type_ = Radiograph


class EmbeddingCoder(FieldsCoder):
    """Encodes `Embedding`."""

    type_ = Embedding


def array_bytes(value: Any) -> int:
    """Returns the bytes of the arrays and byte strings that an element holds itself."""
    held = (getattr(value, f.name) for f in dataclasses.fields(value))
    return sum(
        item.nbytes if isinstance(item, np.ndarray) else len(item)
        for item in held
        if isinstance(item, np.ndarray | bytes)
    )


for _coder in (ImageRefCoder, RadiographCoder, EmbeddingCoder):
    beam.coders.registry.register_coder(_coder.type_, _coder)
