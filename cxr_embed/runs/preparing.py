"""Prepares an output for a run: removes old records, writes its config, reserves what it needs."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cxr_embed import storage
from cxr_embed.errors import Unreachable, UsageError
from cxr_embed.faults import machine_fault
from cxr_embed.outcomes import Stage
from cxr_embed.runs.fingerprint import OutputConfig, write_output_config
from cxr_embed.runs.plan import Plan

# Upper estimates of the size of a manifest and of a table row without its path.
_MANIFEST_BYTES, _ROW_BYTES = 64 << 10, 400
# More than are open at a time while they are written.
_HANDLES = 8


def prepare_output(plan: Plan) -> None:
    """Removes old records, then writes the fingerprint.

    In this order, a run that is killed never leaves old records beside a new fingerprint.
    """
    output_path = plan.job.output_path
    assert plan.embedding_size is not None
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda r: storage.remove(storage.join(output_path, r)), plan.replace))
        write_output_config(output_path, OutputConfig(plan.config_fingerprint, plan.embedding_size))
    except OSError as error:
        raise Unreachable(
            f"--output_path {output_path} cannot be written to: {error.strerror or error}"
        ) from error


def reserved_handles() -> contextlib.ExitStack:
    """Reserves file handles for tables and manifest, in case the run ends for lack of them."""
    held = contextlib.ExitStack()
    with contextlib.suppress(OSError):
        for _ in range(_HANDLES):
            held.enter_context(open(os.devnull, "rb"))  # noqa: SIM115, PTH123  closed by the caller
    return held


def reserved_space(plan: Plan) -> contextlib.AbstractContextManager[Any]:
    """Reserves disk space for tables and manifest, in case records fill the output's disk.

    The reserved file has no name, so the operating system removes it when the process ends.
    """
    if storage.is_remote(plan.folder) or not hasattr(os, "posix_fallocate"):
        return contextlib.nullcontext()
    size = _MANIFEST_BYTES + sum(2 * len(ref.path) + _ROW_BYTES for ref in plan.todo)
    try:
        Path(plan.folder).mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=plan.folder)  # noqa: SIM115  closed by the caller
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            with contextlib.suppress(OSError):  # nothing was written
                Path(plan.folder).rmdir()
                Path(plan.folder).parent.rmdir()
            fault = machine_fault(error, Stage.WRITE, f"--output_path {plan.job.output_path}")
            raise (fault or error) from error
        raise UsageError(
            f"--output_path {plan.job.output_path} cannot be written to: {error.strerror or error}"
        ) from error
    return file
