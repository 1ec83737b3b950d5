"""One .npz file of embeddings, which NumPy alone reads: written in one stream, read in parts."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from cxr_embed.embeddings.mimic_paths import mimic_ids
from cxr_embed.embeddings.parts import Names, Parts
from cxr_embed.errors import UsageError, one_line

ID_ARRAY, IMAGE_ARRAY, EMBEDDING_ARRAY = "dicom_id", "image_id", "embedding"
NOT_MIMIC = -1
ROWS_PER_PART = 1024

_LOCAL_HEADER = 30


def npz_parts(path: str, files: Sequence[str]) -> Parts:
    """Takes an .npz file apart into runs of rows.

    Raises:
        UsageError: not one such file, or without the arrays that are needed.
    """
    if len(files) > 1:
        raise UsageError(f"{path} holds {len(files)} .npz files: name one of them")
    file = files[0]
    try:
        dicom_ids, image_ids = _array(file, ID_ARRAY), _array(file, IMAGE_ARRAY)
        values = _array(file, EMBEDDING_ARRAY)
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file} is not an .npz file of embeddings: {one_line(error)}") from error
    if values.ndim != 2 or not len(values) == len(dicom_ids) == len(image_ids):
        raise UsageError(f"{file}: the arrays' lengths do not fit together")
    starts = range(0, len(values), ROWS_PER_PART)
    parts = [
        Rows(*(array[i : i + ROWS_PER_PART] for array in (dicom_ids, image_ids, values)))
        for i in starts
    ]
    return Parts(path, "npz", values.shape[1], parts)


@dataclass(frozen=True)
class Rows:
    """A part: a run of rows, still on the disk where it is not compressed."""

    threads: ClassVar[int] = 2
    ids: np.ndarray
    images: np.ndarray
    values: np.ndarray

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.values)

    def dicom_ids(self) -> list[str]:
        """Returns the array of ids."""
        return self.ids.tolist()

    def read(self, out: np.ndarray) -> Names:
        """Reads all rows into `out`; see `parts.Part`."""
        out[:] = self.values
        return Names(self.ids.tolist(), self.images.tolist())


def _array(file: str, name: str) -> np.ndarray:
    """Maps an array where it is stored as it is; else reads it whole."""
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            with np.load(file) as arrays:
                return arrays[name]
        with archive.open(member) as stream:
            shape, fortran, dtype = _read_header(stream)
            header = stream.tell()
    with Path(file).open("rb") as raw:
        raw.seek(member.header_offset)
        local = raw.read(_LOCAL_HEADER)
        start = member.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", local[26:30]))
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects")
    return np.memmap(file, dtype, "r", int(start) + header, shape, "F" if fortran else "C")


def _read_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def write_npz(
    file: IO[bytes], blocks: Iterable[tuple[Names, np.ndarray]], shape: tuple[int, int], dtype: str
) -> None:
    """Writes an .npz file in one stream, uncompressed; the same rows always give the same bytes.

    Args:
        file: where to; must be able to seek.
        blocks: the rows, some at a time.
        shape: of the whole matrix.
        dtype: `float32` or `float16`.
    """
    dicom_ids: list[str] = []
    image_ids: list[str] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with _member(archive, EMBEDDING_ARRAY) as stream:
            descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for names, block in blocks:
                stream.write(np.ascontiguousarray(block, dtype).reshape(-1).view(np.uint8).data)
                dicom_ids += names.dicom_ids
                image_ids += names.image_ids
        found = [mimic_ids(image_id) or (NOT_MIMIC, NOT_MIMIC) for image_id in image_ids]
        columns = {
            ID_ARRAY: np.array(dicom_ids, np.str_),
            IMAGE_ARRAY: np.array(image_ids, np.str_),
            "subject_id": np.array([ids[0] for ids in found], np.int64),
            "study_id": np.array([ids[1] for ids in found], np.int64),
        }
        for name, array in columns.items():
            with _member(archive, name) as stream:
                np.lib.format.write_array(stream, array)


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    # The time is fixed, so that the bytes depend on the rows alone.
    info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    return archive.open(info, "w", force_zip64=True)
