"""One decoding process of `decoder_process`: starts it, sends it images, ends it."""

from __future__ import annotations

import json
import math
import mmap
import os
import select
import subprocess
import sys
import tempfile
import time
import weakref
from typing import Any, cast

import numpy as np

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.decode_worker import READY, write_whole

_START_SECONDS = 120

# A child's pipe closes before the child has ended: its memory is freed last, which takes time on a
# busy machine.
_END_SECONDS = 30

# A shared file that has grown beyond this is emptied after use.
_KEPT_BYTES = 64 << 20

# Huge pages, where Linux and its C library support them, save the decoders up to half of their
# time: they allocate new memory for each image.
_ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}

_BOOTSTRAP = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from cxr_embed.imaging.decode_worker import serve; serve(int(sys.argv[2]))"
)


class Lost(Exception):
    """The child has ended, or does not answer in time."""


class NotStarted(Exception):
    """A new child has ended with `status`, or has not become ready in time (None)."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class OutOfMemory(Exception):
    """The decoder could not allocate memory; `is_lowered`: below what the image is allowed."""

    def __init__(self, is_lowered: bool) -> None:
        super().__init__(is_lowered)
        self.is_lowered = is_lowered


# All children of this process that have not been closed.
children: weakref.WeakSet[Child] = weakref.WeakSet()


class Child:
    """One decoding process, the pipes to it and the file shared with it."""

    def __init__(self) -> None:
        self._shared = _memory_file()
        self._map: mmap.mmap | None = None
        self._is_ending = False
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
        children.add(self)
        try:
            if self._read_line(_START_SECONDS) != READY:
                raise Lost
        except Lost:
            raise NotStarted(self.end()) from None
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
            The pixels, read-only and valid only until the next request; and the steps taken.

        Raises:
            ImageRejected: the decoder raised.
            OSError: the shared file could not be written or mapped.
            Lost: the child has ended, or has not answered in `patience` seconds.
            OutOfMemory: the decoder could not allocate memory.
        """
        write_whole(self._shared, parts)
        try:
            cast(Any, self._process.stdin).write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            self._is_ending = True
            raise Lost from None
        answer = json.loads(self._read_line(patience))
        if "reason" in answer:
            raise ImageRejected(answer["reason"], answer["detail"])
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        if "out_of_memory" in answer:
            raise OutOfMemory(answer["out_of_memory"])
        return self._view(answer["shape"], np.dtype(answer["dtype"])), answer["steps"]

    def _view(self, shape: list[int], dtype: np.dtype) -> np.ndarray:
        count = math.prod(shape)
        if self._map is None or len(self._map) < count * dtype.itemsize:
            self._map = mmap.mmap(self._shared, count * dtype.itemsize, prot=mmap.PROT_READ)
        return np.frombuffer(self._map, dtype, count).reshape(shape)

    def tidy(self) -> None:
        """Frees memory after a large image, whose pixels must not be used any more."""
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
                raise Lost
            part = os.read(descriptor, 4096)
            if not part:
                self._is_ending = True
                raise Lost
            line += part
        return line

    def close(self) -> int:
        """Ends the process, if it has not ended by itself; returns its exit status."""
        self._process.kill()
        status = self._process.wait()
        self.forget()
        return status

    def end(self) -> int | None:
        """Closes a child that was lost; returns its exit status, None where it took too long."""
        try:
            self._process.wait(_END_SECONDS if self._is_ending else 0)
        except subprocess.TimeoutExpired:
            self.close()
            return None
        return self.close()

    def forget(self) -> None:
        """Closes this process's ends of pipes and file; the child ends when all are closed."""
        if self not in children:
            return
        children.discard(self)
        for stream in (self._process.stdin, self._process.stdout):
            cast(Any, stream).close()
        os.close(self._shared)
        if self._process.returncode is None:
            self._process.returncode = 0  # it is the child of another process


def _memory_file() -> int:
    """Returns the descriptor of an unnamed file, which disappears with the processes."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("cxr-embed-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
