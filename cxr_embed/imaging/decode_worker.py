"""The child's side of `decoder_process`: decodes one frame after the other until its input ends.

Native decoders may crash, hang or allocate all memory. Here that costs one child process.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cxr_embed.imaging import safe_pydicom  # noqa: F401  must come before pydicom

# isort: split
import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGLossless,
    JPEGLosslessSV1,
)

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.htj2k import decode_htj2k
from cxr_embed.imaging.lossless_jpeg import decode_lossless_jpeg
from cxr_embed.imaging.pictures import decode_picture
from cxr_embed.imaging.reduced_jpeg2000 import decode_reduced

READY = b"ready\n"

# Bytes of address space that any image may take, and those for each pixel and each byte of its
# stream. OpenJPEG needs most: it works in 32-bit integers and keeps several planes.
BASE_BYTES, BYTES_A_PIXEL, BYTES_A_BYTE = 192 << 20, 12, 4

# An empty offset table and the tag of one fragment, as PS3.5 A.4 frames a stream.
_FRAMING = struct.Struct("<HHIHHI")


def frame_header(length: int) -> bytes:
    """Returns the start of encapsulated Pixel Data with one fragment of `length` bytes."""
    return _FRAMING.pack(0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, length)


def serve(shared: int) -> None:
    """Answers requests on standard input, one line of JSON each, until it ends.

    Args:
        shared: descriptor of the file that holds the encapsulated stream, and to which the
            decoded pixels are written.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    _prepare()
    answers.write(READY)
    answers.flush()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # some decoders print messages
        os.dup2(nowhere, descriptor)
    for line in requests:
        answer = _answer(json.loads(line), shared)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _prepare() -> None:
    """Prepares this process for being killed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # where memory runs out, Linux kills this process first
        Path("/proc/self/oom_score_adj").write_text("900")


def allowed_bytes(rows: int, columns: int, length: int) -> int:
    """Returns the memory that an image may take, on top of the process itself.

    Args:
        rows: height in pixels.
        columns: width in pixels.
        length: of its compressed stream, in bytes.
    """
    return BASE_BYTES + BYTES_A_PIXEL * rows * columns + BYTES_A_BYTE * length


def _answer(request: dict[str, Any], shared: int) -> dict[str, Any]:
    """Decodes one image; returns its pixels' type and shape, or what prevented it.

    `reason` and `detail` are those of a rejection, `errno` is the system's error, and
    `out_of_memory` is true where the limit was lower than the image is allowed.
    """
    rows, columns, length = request["rows"], request["columns"], request["length"]
    is_lowered = _limit_memory(allowed_bytes(rows, columns, length))
    # Processor time, however busy the machine is; the signal ends the process.
    signal.setitimer(signal.ITIMER_PROF, request["seconds"])
    steps: list[str] = []
    try:
        data = _read_whole(shared, length)
        if "file_type" in request:
            array, steps = decode_picture(data, request["file_type"], rows, columns)
        else:
            array = _decode(request, data)
        _write_pixels(shared, array)
        return {"dtype": array.dtype.str, "shape": array.shape, "steps": steps}
    except ImageRejected as rejected:
        return {"reason": rejected.reason, "detail": rejected.detail}
    except MemoryError:
        return {"out_of_memory": is_lowered}
    except _SharedFileError as error:
        return {"errno": error.errno}
    except BaseException as error:  # a panic in Rust code is not an Exception
        detail = f"{request['plugin']} could not decode the pixels ({type(error).__name__})"
        return {"reason": "decode_error", "detail": detail}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class _SharedFileError(OSError):
    """The shared file could not be read or written, which is not the image's fault."""


def _read_whole(shared: int, length: int) -> bytes:
    try:
        return os.pread(shared, length, 0)
    except OSError as error:
        raise _SharedFileError(error.errno, error.strerror) from error


def _write_pixels(shared: int, array: np.ndarray) -> None:
    try:
        write_whole(shared, [np.ascontiguousarray(array).data.cast("B")])
    except OSError as error:
        raise _SharedFileError(error.errno, error.strerror) from error


def _decode(request: dict[str, Any], data: bytes) -> np.ndarray:
    """Returns what pydicom's decoder gives, but for bits above Bits Stored, which may be set."""
    syntax, plugin, options = request["transfer_syntax"], request["plugin"], request["options"]
    if count := options.pop("halvings", 0):
        with contextlib.suppress(Exception):  # whole, it is decoded or its fault is named
            array = decode_reduced(data[_FRAMING.size :], options, count)
            if array is not None:
                return array
    if syntax in _DIRECT:
        # What a fast decoder refuses, pydicom may still read.
        with contextlib.suppress(Exception):
            return _DIRECT[syntax](data[_FRAMING.size :], options)
    # `raw` leaves out colour conversion only; signs are corrected anyway. Clearing unused bits
    # takes two passes over the pixels, which the caller mostly does not need.
    array, _ = get_decoder(syntax).as_array(
        data, raw=True, decoding_plugin=plugin, correct_unused_bits=False, **options
    )
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


# Decoders that pydicom has no plugin for.
_DIRECT: dict[str, Callable[[bytes, dict[str, Any]], np.ndarray]] = {
    JPEGLossless: decode_lossless_jpeg,
    JPEGLosslessSV1: decode_lossless_jpeg,
    HTJ2KLossless: decode_htj2k,
    HTJ2KLosslessRPCL: decode_htj2k,
    HTJ2K: decode_htj2k,
}


def _limit_memory(allowed: int) -> bool:
    """Limits the memory of the next image, on top of what this process takes by itself.

    Returns:
        Whether a limit of the system's is lower, so that the image gets less than is allowed.
    """
    # Systems without /proc have no such limit either.
    with contextlib.suppress(OSError, ValueError):
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = mapped + allowed
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard != resource.RLIM_INFINITY and hard < limit:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
            return True
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    return False


def write_whole(shared: int, parts: list[Any]) -> None:
    """Writes buffers one after the other to the start of the shared file."""
    position = 0
    for part in parts:
        view = memoryview(part)
        while view:
            count = os.pwrite(shared, view, position)
            view, position = view[count:], position + count


if __name__ == "__main__":
    serve(int(sys.argv[1]))
