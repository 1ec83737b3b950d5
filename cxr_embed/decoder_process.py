"""Native decoders in processes of their own, so that no image can take the run down.

A child is a fresh interpreter (forking is not safe once threads or TensorFlow have started) that
decodes one image after the other for one thread after the other. There are as many as threads ever
decoded at the same time. Stream and pixels go through a file in memory that both hold open; the
pipes carry a line each way. Children have a process group of their own, so that Ctrl-C and the
like are for the parent alone to answer. They end with the parent, however it ends: their input
does.

What an image may take is set by its size: processor time, address space, and time on the clock for
one that waits for ever. Past that, or when it crashes, its child is lost and it is rejected.

What it costs, against the same decoder in this process: under half a millisecond for a 440 x 440
RLE image, 16 ms for one of 3056 x 2544 (26 ms of decoding), and nothing that can be told from noise
for JPEG-LS and JPEG 2000, where huge pages win back what the way there and back takes. Each child
takes 0.3 s to start, once, and 75 MB.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import json
import math
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from typing import Any, cast

import numpy as np

from cxr_embed.decode_worker import READY, frame_header, write_whole
from cxr_embed.errors import ImageRejected

# Processor time for one image, about five times what the slowest decoder, JPEG 2000, takes: a
# stream of few bytes that claims many pixels gets little.
BASE_SECONDS, SECONDS_A_BYTE, SECONDS_A_PIXEL = 1.0, 8e-7, 5e-8

# Time on the clock, in multiples of the above, for a child that waits for ever; long, because on a
# busy machine a second of processor time can take many.
_PATIENCE = 20
_START_SECONDS = 120

# A shared file that has grown beyond this is emptied after use.
_KEPT_BYTES = 64 << 20

# Huge pages, where Linux and its C library know them, spare the decoders up to half of their time:
# they ask for fresh memory for each image.
_ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}

_BOOTSTRAP = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from cxr_embed.decode_worker import serve; serve(int(sys.argv[2]))"
)


class _Lost(Exception):
    """The child has ended, or does not answer in time."""


class _Child:
    """One decoding process, the pipes to it and the file shared with it."""

    def __init__(self) -> None:
        self._shared = _memory_file()
        self._map: mmap.mmap | None = None
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-P", "-c", _BOOTSTRAP, json.dumps(sys.path),
                 str(self._shared)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=[self._shared],
                process_group=0,
                env=os.environ | _ENVIRONMENT,
            )  # fmt: skip
        except BaseException:
            os.close(self._shared)
            raise
        _children.add(self)
        try:
            if self._read_line(_START_SECONDS) != READY:
                raise _Lost
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def run(
        self, request: dict[str, Any], parts: list[Any], patience: float
    ) -> tuple[np.ndarray, list[str]]:
        """Sends one request and waits for its answer.

        Returns:
            The pixels, read-only and good only until the next request; and what was done.

        Raises:
            ImageRejected: the decoder raised.
            _Lost: the child died, or has not answered in `patience` seconds.
        """
        write_whole(self._shared, parts)
        try:
            cast(Any, self._process.stdin).write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise _Lost from None
        answer = json.loads(self._read_line(patience))
        if "reason" in answer:
            raise ImageRejected(answer["reason"], answer["detail"])
        return self._view(answer["shape"], np.dtype(answer["dtype"])), answer["steps"]

    def _view(self, shape: list[int], dtype: np.dtype) -> np.ndarray:
        count = math.prod(shape)
        if self._map is None or len(self._map) < count * dtype.itemsize:
            self._map = mmap.mmap(self._shared, count * dtype.itemsize, prot=mmap.PROT_READ)
        return np.frombuffer(self._map, dtype, count).reshape(shape)

    def tidy(self) -> None:
        """Gives memory back after a large image; nobody may look at its pixels any more."""
        if self._map is not None and len(self._map) > _KEPT_BYTES:
            self._map = None
            os.ftruncate(self._shared, 0)

    def _read_line(self, seconds: float) -> bytes:
        descriptor = cast(Any, self._process.stdout).fileno()
        poll = select.poll()  # select() fails on descriptors above 1023
        poll.register(descriptor, select.POLLIN)
        deadline, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise _Lost
            part = os.read(descriptor, 4096)
            if not part:
                raise _Lost
            line += part
        return line

    def close(self) -> int:
        """Ends the process, if it has not ended by itself; returns its exit status."""
        self._process.kill()
        status = self._process.wait()
        self.forget()
        return status

    def how_it_ended(self) -> str:
        """Closes a child that was lost, and says in words what happened to it."""
        try:
            self._process.wait(1)  # it closed its pipe a moment before it was gone
        except subprocess.TimeoutExpired:
            self.close()
            return "took too long"
        status = self.close()
        if status == -signal.SIGPROF:
            return "took too long"
        return f"crashed ({signal.Signals(-status).name if status < 0 else f'status {status}'})"

    def forget(self) -> None:
        """Closes this process's ends of pipes and file; the child ends when all are closed."""
        if self not in _children:
            return
        _children.discard(self)
        for stream in (self._process.stdin, self._process.stdout):
            cast(Any, stream).close()
        os.close(self._shared)
        if self._process.returncode is None:
            self._process.returncode = 0  # not ours to wait for


def _memory_file() -> int:
    """Returns the descriptor of an unnamed file: nothing is left of it, whatever happens."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("cxr-embed-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


# A deque's append and pop are atomic, which spares a lock that a fork could leave locked.
_idle: collections.deque[_Child] = collections.deque()
_children: weakref.WeakSet[_Child] = weakref.WeakSet()


def decode(
    transfer_syntax: str, plugin: str, options: dict[str, Any], frame: bytes | memoryview
) -> np.ndarray:
    """Decodes one compressed DICOM frame in a child process.

    Args:
        transfer_syntax: its UID.
        plugin: the pydicom plugin to use.
        options: pydicom's decoding options: rows, columns, bits_allocated and so on.
        frame: the stream, encapsulation taken off.

    Returns:
        What pydicom's decoder gives, but bits above Bits Stored may be set. Read-only: it lies in
        the memory shared with the child, which decodes nothing else as long as the array lives.

    Raises:
        ImageRejected: `decode_error`, or `too_large` for want of memory.
    """
    request = {"transfer_syntax": transfer_syntax, "plugin": plugin, "options": options}
    parts = [frame_header(len(frame)), frame]
    return _run(request, parts, options["rows"], options["columns"])[0]


def decode_picture(
    file_type: str, data: bytes, rows: int, columns: int
) -> tuple[np.ndarray, list[str]]:
    """Decodes a PNG or JPEG file in a child process, as `pictures.decode_picture` does.

    Returns:
        The pixels, which lie in memory as those of `decode` do; and what was done.

    Raises:
        ImageRejected: as there, and `too_large` for want of memory.
    """
    return _run({"file_type": file_type, "plugin": "Pillow"}, [data], rows, columns)


def _run(
    request: dict[str, Any], parts: list[Any], rows: int, columns: int
) -> tuple[np.ndarray, list[str]]:
    length = sum(len(part) for part in parts)
    seconds = BASE_SECONDS + SECONDS_A_BYTE * length + SECONDS_A_PIXEL * rows * columns
    request |= {"rows": rows, "columns": columns, "length": length, "seconds": seconds}
    child = _take()
    try:
        array, steps = child.run(request, parts, seconds * _PATIENCE)
    except ImageRejected:
        _give_back(child)
        raise
    except _Lost:
        end = child.how_it_ended()
        raise ImageRejected("decode_error", f"{request['plugin']} {end} on the pixels") from None
    except BaseException:
        child.close()
        raise
    # Views of views all hold on to the flat array at the bottom.
    weakref.finalize(array.base, _give_back, child).atexit = False
    return array, steps


def _take() -> _Child:
    while _idle:
        with contextlib.suppress(IndexError):  # another thread was faster
            child = _idle.pop()
            if child.is_alive:
                return child
            child.close()
    try:
        return _Child()
    except (_Lost, OSError) as error:
        detail = f": {error.strerror}" if isinstance(error, OSError) else ""
        raise ImageRejected(
            "decode_error", f"no process to decode the pixels in could be started{detail}"
        ) from error


def _give_back(child: _Child) -> None:
    child.tidy()
    _idle.append(child)


@atexit.register
def close_all() -> None:
    """Ends all idle children; they would end by themselves as soon as their input does."""
    while _idle:
        with contextlib.suppress(IndexError):
            _idle.pop().close()


def _after_fork() -> None:
    """Lets a forked process start without children: those it sees belong to its parent."""
    _idle.clear()
    for child in list(_children):
        child.forget()


os.register_at_fork(after_in_child=_after_fork)
