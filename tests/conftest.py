"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest
from faulty_output import Output, make_output
from running import Ran, do_here

# Machines may be slow and busy; what a test finds must not depend on that, nor on chance.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the program sets it: tests that import TensorFlow themselves must not compute otherwise.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

ROOT = Path(__file__).resolve().parent.parent

# What the extras convert and test-convert bring; `make test-convert` installs and runs it.
CONVERT = (
    "efficientnet_lite_pytorch", "open_clip", "timm", "torch", "torchvision", "torchxrayvision",
    "transformers",
)  # fmt: skip

if find_spec("triton"):  # PyTorch's compiler: importing it after TensorFlow crashes the process
    importlib.import_module("triton")


# What takes longest starts first: at the end it would keep one process busy, and the others idle.
FIRST = (
    "tests/integration/test_reference_model.py", "tests/test_docs.py", "tests/test_notebook.py",
    "tests/models/test_devices.py", "tests/integration/", "tests/imaging/test_decoder_process.py",
    "tests/cli/", "tests/pipeline/", "tests/storage/",
)  # fmt: skip


def place_in_order(item: pytest.Item) -> int:
    return next((n for n, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=place_in_order)
    missing = [name for name in CONVERT if find_spec(name) is None]
    if missing:
        skip = pytest.mark.skip(reason=f"run by make test-convert; missing: {', '.join(missing)}")
        for item in items:
            if item.get_closest_marker("convert"):
                item.add_marker(skip)


@pytest.fixture
def do(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs `cxr-embed` in this process: its arguments, and its flags by name."""
    return functools.partial(do_here, capsys)


@pytest.fixture
def succeed(do: Callable[..., Ran]) -> Callable[..., Ran]:
    """Does what `do` does, where anything but the exit status 0 is a failure of the test."""

    def run(*arguments: object, **flags: object) -> Ran:
        ran = do(*arguments, **flags)
        assert ran.status == 0, ran.out + ran.err
        return ran

    return run


@pytest.fixture(scope="session")
def sample_folder() -> Path:
    """Real files with expected pixels that are not part of the project.

    They lie beside the checkout or where CXR_EMBED_SAMPLES says; without them their tests skip.
    """
    folder = Path(os.environ.get("CXR_EMBED_SAMPLES", ROOT.parent / "shared" / "data"))
    if not (folder / "expected_cxr_foundation.csv").is_file():
        pytest.skip("no sample radiographs here; set CXR_EMBED_SAMPLES to their folder")
    return folder


@pytest.fixture(scope="session")
def real_radiographs() -> dict[str, Path]:
    """Real radiographs that PyPI's pydicom-data ships, by file name."""
    import data_store

    folder = Path(data_store.__path__[0]) / "data"
    return {path.name: path for path in folder.glob("RG[13]_*.dcm")}


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real EfficientNet-B0 at 64 px with 4,096 floats, from the exporter itself."""
    from cxr_embed.efficientnet.export import export_model

    folder = tmp_path_factory.mktemp("models") / "efficientnet-b0"
    export_model(folder, architecture="efficientnet-b0", image_size=64, embedding_size=4096)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes next to no time an image, so that there can be many."""
    import tensorflow as tf

    class Tiny(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")])
        def __call__(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"embedding": tf.reshape(image, [-1, 64])}

    folder = tmp_path_factory.mktemp("models") / "tiny"
    module = Tiny()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.__call__})
    return folder


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Output:
    """Real records of a real model, from radiographs with known faults; not to be changed."""
    return make_output(tmp_path_factory.mktemp("look"), small_model)
