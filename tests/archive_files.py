"""Archives for tests, good and hostile."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

KINDS = ("zip", "tar", "tar.gz")


def write_archive(path: Path, files: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> Path:
    """Writes an archive of the kind of its name; names may come more than once."""
    pairs = list(files.items() if isinstance(files, Mapping) else files)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for number, (name, data) in enumerate(pairs):
                kind = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)[number % 2]
                archive.writestr(zipfile.ZipInfo(name), data, kind)
        return path
    mode = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def encrypt(path: Path, name: str) -> None:
    """Marks a member of a zip as encrypted, in both of its headers."""
    change_headers(path, name, 6, 8, lambda flags: flags | 1)


def set_method(path: Path, name: str, method: int) -> None:
    """Gives a member of a zip another compression method, in both of its headers."""
    change_headers(path, name, 8, 10, lambda _: method)


def change_headers(path: Path, name: str, local: int, central: int, change: object) -> None:
    """Changes a 16-bit field of a zip's member at its offsets in both headers."""
    data = bytearray(path.read_bytes())
    raw = name.encode()
    first = data.index(raw) - 30
    last = data.rindex(raw) - 46
    for at in (first + local, last + central):
        (value,) = struct.unpack_from("<H", data, at)
        struct.pack_into("<H", data, at, change(value))  # type: ignore[operator]
    path.write_bytes(data)


def data_at(path: Path, data: bytes) -> int:
    """Returns where some bytes lie in a file."""
    return path.read_bytes().index(data)


def flip(path: Path, offset: int) -> None:
    """Damages one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)
