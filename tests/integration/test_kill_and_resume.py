"""SIGKILL at any moment: the next run ends with what an undisturbed one gives."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from builders import write_images
from running import all_files, command, records, run_here

from cxr_embed.elements import CONFIG_NAME

COUNT = 100


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("in"), COUNT)


def kill(images: Path, output: Path, model: Path, after: int) -> None:
    """Starts a run and kills it once so many records stand."""
    with subprocess.Popen(
        command(input_path=images, output_path=output, model_path=model),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 300
        while len(list(output.glob("*.tfrecord"))) < after and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL


def test_a_killed_run_is_taken_up_again(
    images: Path, tmp_path: Path, small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"input_path": images, "model_path": small_model}
    assert run_here(capsys, output_path=tmp_path / "undisturbed", **flags).status == 0
    whole = records(tmp_path / "undisturbed")
    assert len(whole) == COUNT
    output = tmp_path / "killed"
    for after in (1, 40):
        kill(images, output, small_model, after)
        standing = records(output)
        assert len(standing) < COUNT
        assert standing.items() <= whole.items()
    ran = run_here(capsys, output_path=output, **flags)
    assert ran.status == 0
    assert records(output) == whole
    assert all_files(output) == {*whole, CONFIG_NAME}
