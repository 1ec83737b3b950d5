"""Runs native decoders in processes of their own, so that no image can end the run.

A child is a fresh interpreter (forking is not safe once threads or TensorFlow have started) that
decodes one image at a time. There are as many children as threads have decoded at the same time.
Stream and pixels go through a file in memory that both processes hold open; the pipes carry one
line in each direction. Children have a process group of their own, so that Ctrl-C reaches the
parent alone. They end with the parent, because their input does.

The size of an image sets its limits: processor time, address space, and time on the clock for a
decoder that waits for ever. An image that exceeds them, or at which its child crashes, is rejected.
A child that something else has killed is replaced once. What any image would meet, such as a
process that cannot be started, is a machine's fault.

An image of 3056 x 2544 takes up to 16 ms more than with the same decoder in this process, and no
measurable time for JPEG-LS and JPEG 2000, where huge pages save what the transfer takes. Each child
takes 0.3 s to start, once, and 75 MB.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import errno
import os
import signal
import sys
import weakref
from typing import Any, NoReturn

import numpy as np

from cxr_embed.errors import ImageRejected, MachineFault
from cxr_embed.faults import machine_fault
from cxr_embed.file_types import Buffer
from cxr_embed.imaging import memory
from cxr_embed.imaging.decode_worker import allowed_bytes, frame_header
from cxr_embed.imaging.decoder_child import Child, Lost, NotStarted, OutOfMemory, children
from cxr_embed.outcomes import Stage

# Processor time for one image, about five times what the slowest decoder, JPEG 2000, takes. A
# stream of few bytes whose header gives many pixels gets little.
BASE_SECONDS, SECONDS_A_BYTE, SECONDS_A_PIXEL = 1.0, 8e-7, 5e-8

# Time on the clock, in multiples of the above, for a child that waits for ever. It is long, because
# a second of processor time can take many on a busy machine.
_PATIENCE = 20

# The signals by which the limits of an image or a crash of its decoder end a child. Any other
# signal was sent by something else: a user, the system, or Linux when memory ran out.
_OWN_SIGNALS = {
    signal.SIGPROF, signal.SIGXCPU, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL,
    signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip

_ATTEMPTS = 2

# A deque's append and pop are atomic. A lock instead could stay locked in a forked process.
_idle: collections.deque[Child] = collections.deque()


def decode(transfer_syntax: str, plugin: str, options: dict[str, Any], frame: Buffer) -> np.ndarray:
    """Decodes one compressed DICOM frame in a child process.

    Args:
        transfer_syntax: its UID.
        plugin: the pydicom plugin to use.
        options: pydicom's decoding options: rows, columns, bits_allocated and so on.
        frame: the stream, encapsulation taken off.

    Returns:
        The array of pydicom's decoder, but bits above Bits Stored may be set. Read-only: it lies in
        the memory shared with the child, which decodes nothing else as long as the array exists.

    Raises:
        ImageRejected: `decode_error`; or `too_large` where the decoder takes more memory than an
            image of its size may take.
        MachineFault: no process can be started, or memory has run out.
    """
    request = {"transfer_syntax": transfer_syntax, "plugin": plugin, "options": options}
    parts = [frame_header(len(frame)), frame]
    return _run(request, parts, options["rows"], options["columns"])[0]


def decode_picture(
    file_type: str, data: Buffer, rows: int, columns: int
) -> tuple[np.ndarray, list[str]]:
    """Decodes a PNG or JPEG file in a child process, as `pictures.decode_picture` does.

    Returns:
        The pixels, in shared memory as in `decode`; and the steps taken.

    Raises:
        ImageRejected: as there and as in `decode`.
        MachineFault: as in `decode`.
    """
    return _run({"file_type": file_type, "plugin": "Pillow"}, [data], rows, columns)


def _run(
    request: dict[str, Any], parts: list[Any], rows: int, columns: int
) -> tuple[np.ndarray, list[str]]:
    length = sum(len(part) for part in parts)
    seconds = BASE_SECONDS + SECONDS_A_BYTE * length + SECONDS_A_PIXEL * rows * columns
    request |= {"rows": rows, "columns": columns, "length": length, "seconds": seconds}
    allowed = allowed_bytes(rows, columns, length)
    status = None
    for _ in range(_ATTEMPTS):
        child = _take()
        try:
            array, steps = child.run(request, parts, seconds * _PATIENCE)
        except ImageRejected:
            _give_back(child)
            raise
        except OutOfMemory as error:
            _give_back(child)
            _reject_for_memory(allowed, error.is_lowered)
        except Lost:
            status = child.end()
            if not _was_killed(status):
                break
        except OSError as error:
            child.close()
            raise _fault("no memory could be shared with a decoding process", error) from error
        except BaseException:
            child.close()
            raise
        else:
            # Views of views all refer to the flat array at the bottom.
            weakref.finalize(array.base, _give_back, child).atexit = False
            return array, steps
    if status == -signal.SIGKILL and _lacks_memory(allowed):
        raise _no_memory(allowed)  # Linux kills a process when memory has run out
    end = _words(status)
    raise ImageRejected("decode_error", f"{request['plugin']} {end} on the pixels")


def _was_killed(status: int | None) -> bool:
    """Whether something other than the decoder or the limits of its image ended a child."""
    return status is not None and status < 0 and -status not in _OWN_SIGNALS


def _words(status: int | None) -> str:
    if status is None or -status in (signal.SIGPROF, signal.SIGXCPU):
        return "took too long"
    if status >= 0:
        return f"crashed (status {status})"
    name = signal.Signals(-status).name
    return f"was killed twice ({name})" if _was_killed(status) else f"crashed ({name})"


def _reject_for_memory(allowed: int, is_lowered: bool) -> NoReturn:
    if is_lowered or _lacks_memory(allowed):
        raise _no_memory(allowed)
    raise ImageRejected("too_large", "not enough memory to decode it")


def _lacks_memory(allowed: int) -> bool:
    available = memory.available_bytes()
    return available is not None and available < allowed


def _no_memory(allowed: int) -> MachineFault:
    return MachineFault(
        f"no memory left to decode an image, which may take {allowed >> 20} MB: "
        "use fewer --decode_threads or more memory"
    )


def _fault(what: str, error: OSError) -> MachineFault:
    """Returns the machine's fault behind an error of the system's; any image would meet it."""
    if error.errno == errno.EAGAIN:
        return MachineFault(f"{what}: this user or machine has no processes left (ulimit -u)")
    return machine_fault(error, Stage.DECODE, what) or MachineFault(f"{what}: {error.strerror}")


def _take() -> Child:
    """Returns an idle child, or a new one.

    Raises:
        MachineFault: none can be started, the second time where something killed the first.
    """
    while _idle:
        with contextlib.suppress(IndexError):  # another thread was faster
            child = _idle.pop()
            if child.is_alive:
                return child
            child.close()
    what = "no process to decode pixels could be started"
    status: int | None = None
    for _ in range(_ATTEMPTS):
        try:
            return Child()
        except OSError as error:
            raise _fault(what, error) from error
        except NotStarted as error:
            status = error.status
            if not _was_killed(status):
                break
    raise MachineFault(f"{what}: {sys.executable} {_words(status)}")


def _give_back(child: Child) -> None:
    child.tidy()
    _idle.append(child)


@atexit.register
def close_all() -> None:
    """Ends all idle children; without it they end when their input does."""
    while _idle:
        with contextlib.suppress(IndexError):
            _idle.pop().close()


def _after_fork() -> None:
    """Lets a forked process start without children: those it sees belong to its parent."""
    _idle.clear()
    for child in list(children):
        child.forget()


os.register_at_fork(after_in_child=_after_fork)
