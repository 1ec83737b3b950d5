"""Reads the one part of a multipart/related answer (RFC 2046, section 5.1) while it arrives.

The parsers of the standard library and of requests-toolbelt need the whole answer in memory, and
do not notice that the closing boundary is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cxr_embed.storage.arriving import Arriving
from cxr_embed.storage.retries import Corrupt

# Longest text before the first boundary, together with the headers of the part.
_MOST_HEADERS = 64 << 10

_CONTENT_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d+)[ \t]*\r?$")


class NotOnePart(Exception):
    """The answer is not a multipart answer with one part."""


def read_part(pieces: Iterator[bytes], boundary: str, into: Arriving) -> None:
    """Writes the content of the only part into `into`.

    Args:
        pieces: the body of the answer, none of them empty. It is read to its end.
        boundary: from the header `Content-Type`.
        into: receives the content; its `announced_size` is set if the part has a Content-Length.

    Raises:
        Corrupt: the answer ends too early or contradicts the part's Content-Length.
        NotOnePart: the answer has no part, or several.
        Refused: as `into` raises it.
    """
    # The line break before a boundary belongs to it. The first boundary may have none.
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    buffer = bytearray(b"\r\n")
    size = _read_headers(pieces, delimiter, buffer)
    if size is None:
        _copy_to_delimiter(pieces, delimiter, buffer, into)
    else:
        into.announced_size = lambda: size
        _copy(pieces, size, buffer, into)
    _fill(pieces, buffer, len(delimiter) + 2)
    if not buffer.startswith(delimiter):
        raise Corrupt("the part is longer than its Content-Length")
    if buffer[len(delimiter) : len(delimiter) + 2] != b"--":
        raise NotOnePart("the answer has several parts, not one object")
    for _ in pieces:  # a connection is used again only if the answer was read to its end
        pass


def _read_headers(pieces: Iterator[bytes], delimiter: bytes, buffer: bytearray) -> int | None:
    """Reads to the first byte of the content; returns the Content-Length, if there is one."""
    while True:
        start = buffer.find(delimiter)
        if start >= 0:
            headers = start + len(delimiter)
            if buffer[headers : headers + 2] == b"--":
                raise NotOnePart("the multipart answer has no part")
            end = buffer.find(b"\r\n\r\n", headers)
            if end >= 0:
                break
        if len(buffer) > _MOST_HEADERS:
            raise NotOnePart("the multipart answer does not start with a part")
        buffer += _next(pieces)
    found = _CONTENT_LENGTH.search(buffer, headers, end + 2)
    size = int(found[1]) if found else None
    del buffer[: end + 4]
    return size


def _copy(pieces: Iterator[bytes], size: int, buffer: bytearray, into: Arriving) -> None:
    """Copies `size` bytes; what follows is left in `buffer`."""
    left = size
    piece = bytes(buffer)
    while len(piece) < left:
        if piece:
            into.write(piece)
            left -= len(piece)
        piece = _next(pieces)
    if left:
        into.write(piece[:left])
    buffer[:] = piece[left:]


def _copy_to_delimiter(
    pieces: Iterator[bytes], delimiter: bytes, buffer: bytearray, into: Arriving
) -> None:
    """Copies all bytes before the delimiter, which is left in `buffer`."""
    while (end := buffer.find(delimiter)) < 0:
        safe = len(buffer) - len(delimiter) + 1  # the delimiter may have started
        if safe > 0:
            into.write(bytes(buffer[:safe]))
            del buffer[:safe]
        buffer += _next(pieces)
    if end:
        into.write(bytes(buffer[:end]))
        del buffer[:end]


def _fill(pieces: Iterator[bytes], buffer: bytearray, size: int) -> None:
    while len(buffer) < size:
        buffer += _next(pieces)


def _next(pieces: Iterator[bytes]) -> bytes:
    piece = next(pieces, b"")
    if not piece:
        raise Corrupt("the answer ends before its closing boundary")
    return piece
