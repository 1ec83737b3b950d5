"""Decoders that crash, hang or swallow memory cost one child process and one image."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GRADIENT, make_dataset
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from cxr_embed import read_radiograph
from cxr_embed.errors import ImageRejected, MachineFault
from cxr_embed.imaging import decode_worker, decoder_child, decoder_process, memory

Request = tuple[str, str, dict[str, Any], bytes]


@pytest.fixture(autouse=True)
def one_child_at_most() -> None:
    """What a test before has left idle; to start one takes half a second of processor time."""
    gc.collect()  # an exception that another test has kept can hold pixels, and with them a child
    while len(decoder_process._idle) > 1:
        decoder_process._idle.pop().close()


@pytest.fixture
def no_child(one_child_at_most: None) -> None:
    """The test starts its own."""
    decoder_process.close_all()


def make_request(pixels: np.ndarray = GRADIENT, syntax: str = JPEG2000Lossless) -> Request:
    plugin = {JPEG2000Lossless: "pylibjpeg", JPEGLSLossless: "pyjpegls"}[syntax]
    dataset = make_dataset(pixels)
    dataset.compress(syntax, encoding_plugin=plugin)
    bits = 8 * pixels.dtype.itemsize
    options = {
        "rows": pixels.shape[0], "columns": pixels.shape[1], "number_of_frames": 1,
        "samples_per_pixel": 1, "bits_allocated": bits, "bits_stored": bits,
        "photometric_interpretation": "MONOCHROME2", "pixel_representation": 0,
        "pixel_keyword": "PixelData",
    }  # fmt: skip
    return syntax, plugin, options, get_frame(dataset.PixelData, 0, number_of_frames=1)


@pytest.fixture
def good() -> Request:
    return make_request()


def only_child() -> decoder_child.Child:
    (child,) = decoder_child.children
    return child


def until(condition: Any, seconds: float = 300) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestChildren:
    def test_pixels_come_back_as_they_are(self, good: Request) -> None:
        np.testing.assert_array_equal(decoder_process.decode(*good), GRADIENT)

    def test_one_child_serves_one_image_after_the_other(self, good: Request) -> None:
        for _ in range(3):
            decoder_process.decode(*good)
        assert len(decoder_process._idle) == 1

    def test_pixels_stay_as_long_as_somebody_looks_at_them(self, good: Request) -> None:
        first = decoder_process.decode(*good)[10:20]
        other = make_request(GRADIENT[::-1].copy())
        np.testing.assert_array_equal(decoder_process.decode(*other), GRADIENT[::-1])
        np.testing.assert_array_equal(first, GRADIENT[10:20])
        del first
        assert len(decoder_process._idle) == 2

    def test_pixels_outlive_their_child(self, good: Request) -> None:
        pixels = decoder_process.decode(*good)
        only_child().close()
        np.testing.assert_array_equal(pixels, GRADIENT)

    def test_threads_get_children_of_their_own(self, good: Request) -> None:
        results: list[bool] = []

        def work() -> None:
            results.extend(bool((decoder_process.decode(*good) == GRADIENT).all()) for _ in "12345")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True] * 20
        assert len(decoder_child.children) <= 4

    def test_they_answer_to_nobody_but_their_parent(self, good: Request) -> None:
        decoder_process.decode(*good)
        assert os.getpgid(only_child().pid) != os.getpgrp()

    def test_memory_of_a_large_image_is_given_back(
        self, good: Request, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoder_child, "_KEPT_BYTES", 1000)
        for _ in range(2):
            pixels = decoder_process.decode(*good)
            np.testing.assert_array_equal(pixels, GRADIENT)
            del pixels
            assert os.fstat(only_child()._shared).st_size == 0

    def test_many_open_files_do_not_matter(self, good: Request, no_child: None) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 1300 if hard == resource.RLIM_INFINITY else min(hard, 1300)
        if wanted < 1300:
            pytest.skip("this system does not allow 1,300 open files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
        try:
            np.testing.assert_array_equal(decoder_process.decode(*good), GRADIENT)
        finally:
            for file in files:
                os.close(file)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def test_systems_without_memory_files_use_an_unnamed_file(
        self, good: Request, no_child: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "memfd_create", raising=False)
        np.testing.assert_array_equal(decoder_process.decode(*good), GRADIENT)


class TestLosses:
    def test_an_idle_child_that_dies_costs_nothing(self, good: Request) -> None:
        decoder_process.decode(*good)
        os.kill(only_child().pid, signal.SIGSEGV)
        until(lambda: not decoder_process._idle[0].is_alive)
        np.testing.assert_array_equal(decoder_process.decode(*good), GRADIENT)

    def test_a_child_that_crashes_costs_one_image(self, good: Request) -> None:
        decoder_process.decode(*good)
        pid = only_child().pid
        os.kill(pid, signal.SIGSTOP)  # so that it cannot be done before it crashes

        def crash() -> None:
            os.kill(pid, signal.SIGSEGV)
            os.kill(pid, signal.SIGCONT)

        threading.Timer(0.2, crash).start()
        with pytest.raises(ImageRejected, match=r"pylibjpeg crashed \(SIGSEGV\)") as caught:
            decoder_process.decode(*good)
        assert caught.value.reason == "decode_error"
        np.testing.assert_array_equal(decoder_process.decode(*good), GRADIENT)

    def test_a_child_that_waits_for_ever_is_given_up(
        self, good: Request, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoder_process.decode(*good)
        os.kill(only_child().pid, signal.SIGSTOP)
        monkeypatch.setattr(decoder_process, "_PATIENCE", 0.1)
        with pytest.raises(ImageRejected, match="took too long"):
            decoder_process.decode(*good)
        assert not decoder_child.children

    def test_a_child_that_works_for_ever_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slow = make_request(np.random.default_rng(0).integers(0, 4096, (900, 900), np.uint16))
        for name in ("SECONDS_A_BYTE", "SECONDS_A_PIXEL"):
            monkeypatch.setattr(decoder_process, name, 0)
        monkeypatch.setattr(decoder_process, "BASE_SECONDS", 0.02)
        monkeypatch.setattr(decoder_process, "_PATIENCE", 10_000)
        with pytest.raises(ImageRejected, match="took too long"):
            decoder_process.decode(*slow)

    def test_charls_works_for_ever_on_some_damaged_streams(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half a stream, with the end mark behind it, keeps CharLS busy for ten seconds."""
        syntax, plugin, options, frame = make_request(syntax=JPEGLSLossless)
        monkeypatch.setattr(decoder_process, "BASE_SECONDS", 0.3)
        with pytest.raises(ImageRejected):
            decoder_process.decode(syntax, plugin, options, frame[: len(frame) // 2] + b"\xff\xd9")

    @pytest.mark.parametrize("program", ["/nonexistent/python", "/bin/false"])
    def test_a_child_that_cannot_start_is_no_fault_of_the_pixels(
        self, good: Request, no_child: None, monkeypatch: pytest.MonkeyPatch, program: str
    ) -> None:
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(MachineFault, match="could be started"):
            decoder_process.decode(*good)
        assert not decoder_child.children

    def test_memory_is_bounded_by_what_the_image_needs(self, no_child: None) -> None:
        """6,000 x 6,000 pixels in tiles of 100 x 100, where the stream was written as one tile."""
        dataset = make_dataset(np.tile(np.arange(6000, dtype=np.uint8), (6000, 1)))
        dataset.compress(JPEG2000Lossless)
        data = bytearray(dataset.PixelData)
        siz = data.index(b"\xff\x4f\xff\x51") + 2
        data[siz + 22 : siz + 30] = (100).to_bytes(4, "big") * 2
        dataset.PixelData = bytes(data)
        with contextlib.suppress(ImageRejected):
            read_radiograph(dataset)
        status = Path(f"/proc/{only_child().pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
        assert peak < 1.4e6  # kilobytes: what each pixel may take, and the process itself

    def test_decoders_are_heard_by_nobody(self, capfd: pytest.CaptureFixture[str]) -> None:
        syntax, plugin, options, frame = make_request()
        for cut in (60, 100, len(frame) // 2):
            with contextlib.suppress(ImageRejected):
                decoder_process.decode(syntax, plugin, options, frame[:cut])
        assert capfd.readouterr() == ("", "")


def kill_while_decoding(monkeypatch: pytest.MonkeyPatch, how: int, times: int) -> list[int]:
    """Kills that many children with a signal, each while it decodes; returns their ids."""
    killed: list[int] = []
    run = decoder_child.Child.run

    def stopped_run(child: decoder_child.Child, *arguments: Any) -> Any:
        if len(killed) < times:
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGSTOP)  # so that it cannot finish before it is killed

            def end() -> None:
                os.kill(child.pid, how)
                os.kill(child.pid, signal.SIGCONT)

            threading.Timer(0.2, end).start()
        return run(child, *arguments)

    monkeypatch.setattr(decoder_child.Child, "run", stopped_run)
    return killed


class TestKilledFromOutside:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
    def test_once_costs_nothing(
        self, good: Request, monkeypatch: pytest.MonkeyPatch, how: int
    ) -> None:
        killed = kill_while_decoding(monkeypatch, how, 1)
        np.testing.assert_array_equal(decoder_process.decode(*good), GRADIENT)
        assert len(killed) == 1
        assert only_child().pid not in killed

    def test_twice_costs_the_image(self, good: Request, monkeypatch: pytest.MonkeyPatch) -> None:
        kill_while_decoding(monkeypatch, signal.SIGKILL, 2)
        with pytest.raises(ImageRejected, match=r"was killed twice \(SIGKILL\)") as caught:
            decoder_process.decode(*good)
        assert caught.value.reason == "decode_error"
        assert not decoder_child.children

    @pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT, signal.SIGPROF])
    def test_crashes_and_its_own_limits_are_not_tried_again(
        self, good: Request, monkeypatch: pytest.MonkeyPatch, how: int
    ) -> None:
        killed = kill_while_decoding(monkeypatch, how, 2)
        with pytest.raises(ImageRejected, match=r"crashed|took too long"):
            decoder_process.decode(*good)
        assert len(killed) == 1

    def test_a_picture_is_tried_again_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        buffer = io.BytesIO()
        Image.fromarray(GRADIENT).save(buffer, "PNG")
        kill_while_decoding(monkeypatch, signal.SIGKILL, 1)
        pixels, _ = decoder_process.decode_picture("png", buffer.getvalue(), *GRADIENT.shape)
        np.testing.assert_array_equal(pixels, GRADIENT)


def little_memory(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes this machine report one megabyte of available memory."""
    (folder / "meminfo").write_text("MemAvailable:    1000 kB\n")
    monkeypatch.setattr(memory, "PROC", folder)


class TestMachineFaults:
    def test_memory_that_an_image_may_not_take_is_its_own_fault(self) -> None:
        """A stream that needs more than an image of the size in its request may take."""
        large = make_request(np.tile(np.arange(6000, dtype=np.uint8), (6000, 1)))
        decoder_process.decode(*make_request())  # starts the child that gets the next request
        request = {"transfer_syntax": large[0], "plugin": large[1], "options": large[2]}
        frame = [decode_worker.frame_header(len(large[3])), large[3]]
        with pytest.raises(ImageRejected) as caught:
            decoder_process._run(request, frame, 100, 100)
        assert caught.value.reason in ("too_large", "decode_error")

    def test_memory_that_the_machine_lacks_is_not(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        little_memory(monkeypatch, tmp_path)
        with pytest.raises(MachineFault, match="no memory left"):
            decoder_process._reject_for_memory(decode_worker.allowed_bytes(9, 9, 9), False)

    def test_a_child_killed_for_memory_shows_that_the_machine_lacks_it(
        self, good: Request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        little_memory(monkeypatch, tmp_path)
        kill_while_decoding(monkeypatch, signal.SIGKILL, 2)
        with pytest.raises(MachineFault, match="no memory left"):
            decoder_process.decode(*good)

    def test_a_lower_limit_of_the_system_is_not_the_images(self, tmp_path: Path) -> None:
        """`ulimit -v` leaves a child less than an image of its size may take."""
        program = parent(
            tmp_path,
            """
            import resource
            from cxr_embed.errors import MachineFault
            import numpy as np
            big = make_request(np.zeros((6000, 6000), np.uint16))
            processes.close_all()
            resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
            child = processes._take()
            used = int(open(f"/proc/{child.pid}/statm").read().split()[0]) * 4096
            processes._give_back(child)
            resource.prlimit(child.pid, resource.RLIMIT_AS, (used + (60 << 20),) * 2)
            try:
                processes.decode(*big)
            except MachineFault as fault:
                print(fault)
            """,
        )
        out, err = program.communicate()
        assert out.startswith("no memory left to decode an image"), (out, err)

    def test_no_file_handles_left(self, tmp_path: Path) -> None:
        program = parent(
            tmp_path,
            """
            import resource
            from cxr_embed.errors import MachineFault
            processes.close_all()
            for spare in range(1, 7):  # which call runs out of them depends on how many there are
                resource.setrlimit(resource.RLIMIT_NOFILE, (900, 1000))
                used = max(int(name) for name in os.listdir("/proc/self/fd"))
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, 1000))
                try:
                    processes.decode(*request)
                    print("decoded")
                except MachineFault as fault:
                    print(fault)
                processes.close_all()
            resource.setrlimit(resource.RLIMIT_NOFILE, (900, 1000))
            print((processes.decode(*request) == GRADIENT).all(), len(os.listdir("/proc/self/fd")))
            """,
        )
        out, err = program.communicate()
        *lines, last = out.splitlines()
        assert err == ""
        assert (
            "no process to decode pixels could be started: this process has no file handles"
            in (lines[0])
        )
        assert all("no file handles left" in line for line in lines if line != "decoded")
        assert last.startswith("True ")

    def test_no_processes_left(self, tmp_path: Path) -> None:
        program = parent(
            tmp_path,
            """
            import resource
            from cxr_embed.errors import MachineFault
            processes.close_all()
            if os.getuid() == 0:
                os.setuid(65534)  # the limit does not hold for root
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
            try:
                processes.decode(*request)
            except MachineFault as fault:
                print(fault)
            """,
        )
        out, err = program.communicate()
        assert "has no processes left (ulimit -u)" in out, err

    def test_a_full_disk_in_place_of_shared_memory(
        self, good: Request, no_child: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full() -> int:
            return os.open("/dev/full", os.O_RDWR)

        monkeypatch.setattr(decoder_child, "_memory_file", full)
        with pytest.raises(MachineFault, match="shared with a decoding process: no space left"):
            decoder_process.decode(*good)
        assert not decoder_child.children

    def test_a_full_disk_that_only_the_child_meets(self) -> None:
        full = os.open("/dev/full", os.O_RDWR)
        try:
            with pytest.raises(decode_worker._SharedFileError) as caught:
                decode_worker._write_pixels(full, GRADIENT)
        finally:
            os.close(full)
        assert caught.value.errno == errno.ENOSPC


class TestLimits:
    def test_they_are_set_in_the_child_only(self, good: Request) -> None:
        before = resource.getrlimit(resource.RLIMIT_AS)
        decoder_process.decode(*good)
        lines = Path(f"/proc/{only_child().pid}/limits").read_text().splitlines()
        limits = {line[:25].strip(): line[26:46].strip() for line in lines}
        assert int(limits["Max address space"]) < 4 << 30
        assert limits["Max core file size"] == "0"
        assert resource.getrlimit(resource.RLIMIT_AS) == before

    def test_systems_without_proc_or_the_limit_go_without(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> Any:
            raise ValueError("current limit exceeds maximum limit")

        monkeypatch.setattr(resource, "setrlimit", fail)
        decode_worker._limit_memory(1000)
        monkeypatch.setattr(decode_worker, "Path", lambda name: Path("/nonexistent", name[1:]))
        decode_worker._limit_memory(1000)


PARENT = """
    import os, signal, sys, time
    sys.path[:0] = {paths!r}
    import cxr_embed.imaging.decoder_process as processes
    from cxr_embed.imaging import decoder_child
    from builders import GRADIENT
    from test_decoder_process import make_request, only_child
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    request = make_request()
    assert (processes.decode(*request) == GRADIENT).all()
"""


def parent(tmp_path: Path, code: str) -> subprocess.Popen[str]:
    """Starts a program that has decoded one image, and goes on with `code`."""
    here = Path(__file__).parent
    script = tmp_path / "parent.py"
    setting_up = textwrap.dedent(PARENT).format(paths=[str(here), str(here.parent)])
    script.write_text(setting_up + textwrap.dedent(code))
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class TestParents:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_children_end_with_them(self, tmp_path: Path, how: int) -> None:
        program = parent(tmp_path, "print(only_child().pid, flush=True); time.sleep(60)")
        child = int(program.stdout.readline())  # type: ignore[union-attr]
        assert is_running(child)
        program.send_signal(how)
        program.communicate()
        assert until(lambda: not is_running(child))

    def test_children_end_where_they_simply_exit(self, tmp_path: Path) -> None:
        out, err = parent(tmp_path, "print(only_child().pid)").communicate()
        assert err == ""
        assert until(lambda: not is_running(int(out)))

    def test_a_fork_starts_children_of_its_own(self, tmp_path: Path) -> None:
        program = parent(
            tmp_path,
            """
            mine = only_child().pid
            held = processes.decode(*request)  # and one that is busy
            busy = {child.pid for child in decoder_child.children}
            pid = os.fork()
            if pid == 0:
                assert not decoder_child.children
                del held
                assert (processes.decode(*request) == GRADIENT).all()
                assert only_child().pid not in busy
                processes.close_all()
                os._exit(7)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert (held == GRADIENT).all()
            del held
            assert (processes.decode(*request) == GRADIENT).all()
            assert only_child().pid == mine
            print(status)
            """,
        )
        out, err = program.communicate()
        assert (out, err) == ("7\n", "")
