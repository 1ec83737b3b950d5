"""What any image would meet ends the run at once, and is never written down as an image's fault."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import write_images
from running import Ran, arguments_of, command, manifest, records, run_apart, run_here, table

COUNT = 60


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("in"), COUNT)


def save_model(folder: Path, body: Any) -> Path:
    """Saves a model that takes 8 x 8 pixels and gives what `body` makes of them."""
    import tensorflow as tf

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32)])
        def __call__(self, image: Any) -> Any:
            return body(tf.reshape(image, [-1, 64]))

    model = Model()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.__call__})
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that records fill: about 30 of 17 KB fit beside the reserved space."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", folder], check=False,
        capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_the_run_with_its_tables(
    images: Path, small_disk: Path, small_model: Path
) -> None:
    output = small_disk / "out"
    ran = run_apart(input_path=images, output_path=output, model_path=small_model)
    assert ran.status == 3
    (line,) = [line for line in ran.err.splitlines() if line.startswith("cxr-embed: ")]
    assert "no space left" in line
    assert "Traceback" not in ran.err
    written = records(output)
    assert 0 < len(written) < COUNT
    assert {row["record"] for row in table(output, "embedded")} == set(written)
    assert table(output, "failures") == []
    counts = manifest(output)["counts"]
    assert (counts["embedded"], counts["not_attempted"]) == (len(written), COUNT - len(written))
    assert manifest(output)["ended"] == "machine_fault"


def test_a_model_that_fails_on_everything_is_the_models_fault(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorflow as tf

    def check(image: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_greater(image, 2.0)]):
            return tf.identity(image)

    model = save_model(tmp_path / "model", check)
    output = tmp_path / "out"
    ran = run_here(capsys, input_path=images, output_path=output, model_path=model)
    assert ran.status == 3
    assert "failed on 16 images in a row" in ran.err
    assert len(table(output, "failures")) < 16
    assert manifest(output)["counts"]["not_attempted"] > COUNT - 16


def test_a_model_that_fails_on_some_costs_only_those(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorflow as tf

    def check(image: Any) -> Any:
        is_wanted = tf.debugging.assert_less(tf.math.floormod(997 * image[:, 9], 1.0), 0.7)
        with tf.control_dependencies([is_wanted]):
            return tf.identity(image)

    model = save_model(tmp_path / "model", check)
    output = tmp_path / "out"
    ran = run_here(capsys, input_path=images, output_path=output, model_path=model, batch_size=8)
    assert ran.status == 1
    failures = table(output, "failures")
    assert {row["reason"] for row in failures} == {"model_error"}
    assert "InvalidArgumentError" in failures[0]["detail"]
    assert 0 < len(failures) < COUNT
    assert len(records(output)) == COUNT - len(failures)


def run_beside(thread: str, *before: str, **flags: Any) -> subprocess.CompletedProcess[str]:
    """Runs the job with a thread beside it; `begun` in it waits for the first record."""
    program = (
        "import os, sys, threading, time\n"
        "from pathlib import Path\n"
        "from cxr_embed.cli import main, run\n"
        f"output = Path({str(flags['output_path'])!r})\n"
        "def begun():\n"
        "    while not list(output.glob('*.tfrecord')): time.sleep(0.001)\n"
        f"def beside():\n{textwrap.indent(thread, '    ')}\n"
        "threading.Thread(target=beside, daemon=True).start()\n"
        "sys.exit(main.guarded(run.main, sys.argv[1:]))\n"
    )
    return subprocess.run(
        [*before, sys.executable, "-c", program, *arguments_of(**flags)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture
def many_images(images: Path, tmp_path: Path) -> Path:
    """As many as take some seconds with a model that takes no time."""
    many = tmp_path / "many"
    shutil.copytree(images, many)
    for number in range(3000):
        os.link(many / "000.dcm", many / f"more{number}.dcm")
    return many


def test_no_file_handles_left_is_no_images_fault(many_images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = run_beside(
        "import resource\n"
        "begun()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
        "held = []\n"
        "for _ in range(4):\n"  # what the job closes meanwhile is taken, too
        "    try:\n"
        "        while True: held.append(open('/dev/null'))\n"
        "    except OSError: time.sleep(0.0005)\n"
        "time.sleep(1000)\n",
        input_path=many_images, output_path=output,
        model_path=save_model(tmp_path / "model", lambda image: image),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "no file handles left" in done.stderr
    assert table(output, "failures") == []
    assert 0 < len(table(output, "embedded")) < 3000


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv takes root's privileges away")
def test_permission_lost_on_the_output_ends_the_run(many_images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = run_beside(
        "begun()\noutput.chmod(0o500)\n",
        "setpriv", "--bounding-set=-dac_override,-dac_read_search",
        input_path=many_images, output_path=output,
        model_path=save_model(tmp_path / "model", lambda image: image),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "cannot be written: Permission denied" in done.stderr
    assert table(output, "failures") == []
    assert 0 < len(table(output, "embedded")) < 3000


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_its_tables(
    images: Path, tmp_path: Path, small_model: Path, sign: signal.Signals
) -> None:
    output = tmp_path / "out"
    with subprocess.Popen(
        command(input_path=images, output_path=output, model_path=small_model),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 300
        while len(list(output.glob("*.tfrecord"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(sign)
        _, err = process.communicate()
    assert process.returncode == 3
    assert "run the same command again to go on" in err
    written = set(records(output))
    assert {row["record"] for row in table(output, "embedded")} == written
    counts = manifest(output)["counts"]
    assert (counts["embedded"], counts["not_attempted"]) == (len(written), COUNT - len(written))
    assert counts["not_attempted"] > 0
    assert manifest(output)["ended"] == "interrupted"


def run_on_workers(capsys: pytest.CaptureFixture[str], *worker: str, **flags: Any) -> Ran:
    started = f"exec {sys.executable} {' '.join(worker)}"
    return run_here(
        capsys, "--runner=PortableRunner", "--job_endpoint=embed",
        "--environment_type=beam:env:harness_subprocess_python:v1",
        f"--environment_config={started}", **flags,
    )  # fmt: skip


def test_max_failures_stops_a_run_on_workers_too(
    images: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "in"
    shutil.copytree(images, mixed)
    for number in range(300):
        (mixed / f"bad{number}.dcm").write_bytes(b"rubbish")
    output = tmp_path / "out"
    ran = run_on_workers(
        capsys, "-m", "apache_beam.runners.worker.sdk_worker_main", input_path=mixed,
        output_path=output, model_path=tiny_model, max_failures=5,
    )  # fmt: skip
    assert ran.status == 1, ran.err
    assert "more images failed than --max_failures allows" in ran.err
    counts = manifest(output)["counts"]
    assert 5 < counts["failed"]["not_an_image"] < 300
    assert counts["not_attempted"] > 0


def test_a_worker_with_other_software_stops_before_it_writes(
    images: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker says that its Pillow is another one, as an old image's would."""
    old = tmp_path / "old_worker.py"
    old.write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "m.version = lambda name: '1.0' if name == 'pillow' else real(name)\n"
        "from apache_beam.runners.worker import sdk_worker_main\n"
        "import sys; sdk_worker_main.main(sys.argv)\n"
    )
    output = tmp_path / "out"
    ran = run_on_workers(
        capsys, str(old), input_path=images, output_path=output, model_path=tiny_model
    )
    assert ran.status == 3, ran.err
    assert "this worker has other software than the launcher (decoders.pillow)" in ran.err
    assert records(output) == {}


def test_a_worker_with_another_model_stops_before_it_writes(
    images: Path, tmp_path: Path, small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's file changes between launch and workers, as two copies of it could differ."""
    model = tmp_path / "model"
    shutil.copytree(small_model, model)
    swap = tmp_path / "worker.py"
    (weights,) = (model / "variables").glob("*.data-*")
    swap.write_text(
        f"data = open({str(weights)!r}, 'r+b')\n"
        "data.seek(-4, 2); data.write(b'1234'); data.close()\n"
        "from apache_beam.runners.worker import sdk_worker_main\n"
        "import sys; sdk_worker_main.main(sys.argv)\n"
    )
    output = tmp_path / "out"
    ran = run_on_workers(capsys, str(swap), input_path=images, output_path=output, model_path=model)
    assert ran.status == 3, ran.err
    assert "from the one that the run was started with" in ran.err
    assert records(output) == {}
