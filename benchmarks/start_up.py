"""How long until something happens: the help, and one tiny image.

    make bench
    PYTHONPATH=scripts python benchmarks/start_up.py [--write]

The image is set against the least it can take: importing TensorFlow and Beam, and loading the same
small model, each in a process of its own, in turns.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import results
from workload import alternating, matrix_model, tiny_dicoms

_LEAST = """
import sys, tensorflow, apache_beam
tensorflow.saved_model.load(sys.argv[1])
"""


def _run(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
    )  # fmt: skip


def main() -> None:
    """Prints the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = str(matrix_model(folder / "model"))
        images = tiny_dicoms(folder / "in", 1)

        def one_image() -> None:
            shutil.rmtree(folder / "out", ignore_errors=True)
            _run("-m", "run_inference", f"--input_path={images}", f"--output_path={folder}/out",
                 f"--model_path={model}")  # fmt: skip

        found = alternating(
            {
                "python": lambda: _run("-c", ""),
                "help": lambda: _run("-m", "run_inference", "--help"),
                "least": lambda: _run("-c", _LEAST, model),
                "image": one_image,
            },
            arguments.rounds,
        )
    lines = [
        f"Seconds from start to exit, median of {arguments.rounds}, alternating.\n",
        "| what | seconds | against the least |",
        "| --- | --- | --- |",
        f"| an empty Python program | {found['python']:.2f} | |",
        f"| `python -m run_inference --help` | {found['help']:.2f} | |",
        f"| importing TensorFlow and Beam, loading the model | {found['least']:.2f} | 1.00 |",
        f"| one tiny image, start to end | {found['image']:.2f} | "
        f"{found['image'] / found['least']:.2f} |",
    ]
    results.show("Start-up", lines, is_written=arguments.write)


if __name__ == "__main__":
    main()
