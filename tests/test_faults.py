"""Whose fault an exception is: the machine's, which any image would meet, or one image's."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from cxr_embed.errors import MachineFault, PlaceGone, PlaceLost, PlaceUnavailable
from cxr_embed.faults import STREAK, Streak, machine_fault
from cxr_embed.outcomes import Stage

EVERY_STAGE = list(Stage)


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class TestAnyStage:
    @pytest.mark.parametrize("stage", EVERY_STAGE)
    @pytest.mark.parametrize(
        ("number", "what"),
        [
            (errno.ENOSPC, "no space left"),
            (errno.EDQUOT, "disk quota"),
            (errno.EMFILE, "no file handles left"),
            (errno.ENFILE, "no file handles left"),
            (errno.ENOMEM, "no memory left"),
            (errno.ENOTCONN, "mounted file system"),
        ],
    )
    def test_what_is_used_up_is_the_machines(self, stage: Stage, number: int, what: str) -> None:
        fault = machine_fault(system_error(number), stage, "out/1.tfrecord")
        assert str(fault).startswith("out/1.tfrecord: ")
        assert what in str(fault)

    @pytest.mark.parametrize("stage", EVERY_STAGE)
    def test_so_is_memory_and_the_message_says_what_to_do(self, stage: Stage) -> None:
        fault = machine_fault(MemoryError("Unable to allocate 9 TiB"), stage)
        assert str(fault).startswith("no memory left: use a smaller --batch_size")

    @pytest.mark.parametrize("stage", EVERY_STAGE)
    def test_what_was_decided_before_stays(self, stage: Stage) -> None:
        fault = MachineFault("decided")
        assert machine_fault(fault, stage, "somewhere else") is fault

    @pytest.mark.parametrize("stage", [Stage.READ, Stage.DECODE, Stage.RENDER])
    @pytest.mark.parametrize(
        "error",
        [
            *map(system_error, (errno.EIO, errno.EACCES, errno.ENOENT, errno.ENAMETOOLONG)),
            ValueError("damaged"), RuntimeError("decoder"), ArithmeticError(), KeyError("x"),
        ],
    )  # fmt: skip
    def test_what_one_image_can_cause_is_the_images(self, stage: Stage, error: Exception) -> None:
        assert machine_fault(error, stage, "in/1.dcm") is None


class TestPlaces:
    """A place that cannot be reached is told apart, since the same work may succeed later."""

    @pytest.mark.parametrize(
        ("error", "stage"),
        [
            (system_error(errno.ENOTCONN), Stage.READ),
            (PlaceGone("https://pacs: 503"), Stage.READ),
            (PlaceUnavailable("gs://b/1: 503"), Stage.WRITE),
        ],
    )
    def test_it_is_lost(self, error: Exception, stage: Stage) -> None:
        assert isinstance(machine_fault(error, stage), PlaceLost)

    def test_a_full_disk_or_a_lost_permission_is_not(self) -> None:
        for error in (system_error(errno.ENOSPC), PermissionError("gs://b/1: 403")):
            fault = machine_fault(error, Stage.WRITE)
            assert fault is not None
            assert not isinstance(fault, PlaceLost)


class TestWriting:
    @pytest.mark.parametrize(
        "number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOENT,
                   errno.EFBIG, errno.ELOOP],
    )  # fmt: skip
    def test_any_record_would_meet_it(self, number: int) -> None:
        fault = machine_fault(system_error(number), Stage.WRITE, "out/1.tfrecord")
        assert str(fault) == f"out/1.tfrecord: cannot be written: {os.strerror(number)}"

    @pytest.mark.parametrize(
        "number", [errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR,
                   errno.EEXIST],
    )  # fmt: skip
    def test_only_this_records_name_meets_it(self, number: int) -> None:
        assert machine_fault(system_error(number), Stage.WRITE, "out/1.tfrecord") is None

    @pytest.mark.parametrize("kind", [PlaceUnavailable, PermissionError, FileNotFoundError])
    def test_a_service_that_refuses_every_object(self, kind: type[OSError]) -> None:
        fault = machine_fault(kind("gs://b/1: 403\nForbidden"), Stage.WRITE)
        assert str(fault) == "cannot be written: gs://b/1: 403 Forbidden"

    def test_a_service_that_refuses_one_object(self) -> None:
        assert machine_fault(OSError("gs://b/1: others keep writing it"), Stage.WRITE) is None

    def test_other_exceptions_are_not_of_the_disk(self) -> None:
        assert machine_fault(ValueError("two dimensions"), Stage.WRITE) is None


class TestModels:
    @pytest.mark.parametrize(
        "name",
        ["ResourceExhaustedError", "InternalError", "UnavailableError", "AbortedError",
         "FailedPreconditionError", "DataLossError", "CancelledError"],
    )  # fmt: skip
    def test_tensorflows_errors_of_devices_are_the_machines(self, name: str) -> None:
        import tensorflow as tf

        error = getattr(tf.errors, name)(None, None, "failed to\nlaunch a kernel")
        fault = machine_fault(error, Stage.INFER, "models/x")
        assert str(fault).startswith(f"models/x: the model cannot run: {name}: ")
        assert "failed to launch a kernel" in str(fault)
        assert machine_fault(error, Stage.DECODE) is None

    @pytest.mark.parametrize("name", ["InvalidArgumentError", "OutOfRangeError", "UnknownError"])
    def test_tensorflows_errors_of_inputs_are_the_images(self, name: str) -> None:
        import tensorflow as tf

        error = getattr(tf.errors, name)(None, None, "not a PNG")
        assert machine_fault(error, Stage.INFER, "models/x") is None

    @pytest.mark.parametrize(
        "name", ["Unauthorized", "Unauthenticated", "Forbidden", "PermissionDenied", "NotFound"]
    )
    def test_an_endpoint_that_refuses_the_account_is_the_machines(self, name: str) -> None:
        from google.api_core import exceptions

        error = getattr(exceptions, name)("who are you")
        assert "who are you" in str(machine_fault(error, Stage.INFER, "endpoint"))

    def test_so_are_credentials_that_cannot_be_refreshed(self) -> None:
        from google.auth.exceptions import RefreshError

        assert machine_fault(RefreshError("expired"), Stage.INFER) is not None

    @pytest.mark.parametrize("name", ["InvalidArgument", "ServiceUnavailable", "DeadlineExceeded"])
    def test_an_endpoint_that_fails_one_request_is_the_images_at_first(self, name: str) -> None:
        from google.api_core import exceptions

        assert machine_fault(getattr(exceptions, name)("no"), Stage.INFER) is None

    def test_another_packages_error_of_the_same_name_is_not_meant(self) -> None:
        class InternalError(Exception):
            pass

        assert machine_fault(InternalError("of something else"), Stage.INFER) is None


class TestStreak:
    def test_it_is_sixteen(self) -> None:
        assert STREAK == 16

    def test_one_less_is_no_fault_and_the_last_one_is(self) -> None:
        streak = Streak("the model m")
        for number in range(STREAK - 1):
            streak.failed(number)
        with pytest.raises(MachineFault) as caught:
            streak.failed(ValueError("the\nlast"))
        assert str(caught.value) == (
            "the model m failed on 16 images in a row, the last time with: the last"
        )

    def test_a_success_ends_it(self) -> None:
        streak = Streak("the model m")
        for _ in range(3):
            for number in range(STREAK - 1):
                streak.failed(number)
            streak.succeeded()

    def test_threads_count_together(self) -> None:
        streak = Streak("the model m", length=1000)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(streak.failed, range(999)))
        with pytest.raises(MachineFault, match="on 1000 images"):
            streak.failed("x")
