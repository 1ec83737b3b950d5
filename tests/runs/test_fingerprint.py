"""What decides the numbers of an output, and how two of them are kept apart."""

from __future__ import annotations

import copy
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cxr_embed.errors import MachineFault, UsageError
from cxr_embed.imaging.decoders import ABSENT
from cxr_embed.runs.fingerprint import (
    CONFIG_NAME,
    Fingerprint,
    OutputConfig,
    differences,
    make_fingerprint,
    merged,
    package_version,
    read_output_config,
    require_same_software,
    write_output_config,
)

Install = Callable[[str, str | None], None]

# An optional decoder, which is not among the tests' own packages.
OPTIONAL = "pylibjpeg-libjpeg"


@pytest.fixture
def without_packages(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Leaves nothing installed but what a test installs."""
    own = str(tmp_path / "site-packages")
    monkeypatch.setattr(
        sys, "path", [p for p in sys.path if p == own or "site-packages" not in p]
    )  # fmt: skip
    return install


def fingerprint(**changes: Any) -> Fingerprint:
    settings = {
        "model_sha256": "m", "rendering": "dicom", "precision": "float32", "engine": "tensorflow",
        "model_config": None,
    }  # fmt: skip
    return make_fingerprint(**(settings | changes))


class TestMaking:
    def test_it_names_everything_that_changes_the_numbers(self) -> None:
        found = fingerprint(model_config={"pooling": "mean"})
        assert set(found) == {
            "model_sha256", "model_config", "rendering", "precision", "engine", "engine_version",
            "preprocessing_version", "resize", "decoders",
        }  # fmt: skip
        assert found["engine_version"] == importlib.metadata.version("tensorflow")
        assert found["decoders"]["pydicom"] == importlib.metadata.version("pydicom")
        assert found["decoders"][OPTIONAL] == ABSENT

    def test_a_hosted_models_engine_is_not_ours(self) -> None:
        assert fingerprint(engine="vertex")["engine_version"] == "hosted"


class TestPackageVersion:
    @pytest.mark.parametrize(
        "distribution",
        [
            "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-intel", "tensorflow-gpu",
            "tensorflow-macos", "tensorflow-rocm", "tensorflow-aarch64", "tf-nightly",
        ],
    )  # fmt: skip
    def test_tensorflow_is_found_under_every_name(
        self, without_packages: Install, distribution: str
    ) -> None:
        without_packages(distribution, "2.99.1")
        assert package_version("tensorflow") == "2.99.1"

    def test_a_build_that_is_no_distribution_is_asked_itself(
        self, without_packages: Install, tmp_path: Path
    ) -> None:
        (tmp_path / "site-packages/built_at_home.py").write_text("__version__ = '7.1'")
        assert package_version("built_at_home") == "7.1"

    def test_what_is_not_there_is_absent(self, without_packages: Install) -> None:
        assert package_version("no_such_package_at_all") == ABSENT


class TestDifferences:
    def test_none(self) -> None:
        assert differences(fingerprint(), fingerprint()) == []

    def test_nested_keys_are_named_in_full(self) -> None:
        one, other = fingerprint(), fingerprint(rendering="cxr_foundation")
        other["decoders"] = other["decoders"] | {"pillow": "0"}
        assert differences(one, other) == ["decoders.pillow", "rendering"]

    def test_model_configs_are_compared_key_by_key(self) -> None:
        one = fingerprint(model_config={"pooling": "mean", "size": [1, 2]})
        other = fingerprint(model_config={"pooling": "flatten", "size": [1, 2]})
        assert differences(one, other) == ["model_config.pooling"]
        assert differences(one, fingerprint()) == ["model_config"]

    def test_an_absent_decoder_changes_no_number(self) -> None:
        one, other = fingerprint(), fingerprint()
        other["decoders"] = other["decoders"] | {OPTIONAL: "2.5.0"}
        assert differences(one, other) == differences(other, one) == []

    def test_a_decoder_that_only_one_of_them_knows_of_is_a_difference(self) -> None:
        one, other = fingerprint(), fingerprint()
        other["decoders"] = other["decoders"] | {"a-later-decoder": "1"}
        assert differences(one, other) == ["decoders.a-later-decoder"]


class TestMerged:
    def test_a_decoder_is_never_forgotten_once_it_was_present(self, install: Install) -> None:
        absent = fingerprint()
        install(OPTIONAL, "1.0")
        first = fingerprint()
        assert first["decoders"][OPTIONAL] == "1.0"
        assert differences(absent, first) == []
        stored = merged(absent, first)
        install(OPTIONAL, None)
        stored = merged(stored, fingerprint())  # a run without it in between
        assert stored["decoders"][OPTIONAL] == "1.0"
        install(OPTIONAL, "2.0")
        assert differences(stored, fingerprint()) == [f"decoders.{OPTIONAL}"]

    def test_it_changes_neither_of_them(self) -> None:
        one, other = fingerprint(), fingerprint()
        other["decoders"] = other["decoders"] | {OPTIONAL: "1"}
        before = copy.deepcopy((one, other))
        merged(one, other)
        assert (one, other) == before


class TestWorkers:
    def test_the_same_software_passes(self) -> None:
        require_same_software(fingerprint())
        require_same_software(fingerprint(engine="vertex"))

    def test_other_software_is_the_machines_fault_and_named(self) -> None:
        launcher = fingerprint()
        launcher["engine_version"] = "1.0"
        launcher["resize"] = "opencv 1.0"
        launcher["decoders"] = launcher["decoders"] | {"pillow": "1.0"}
        with pytest.raises(MachineFault) as caught:
            require_same_software(launcher)
        assert "(decoders.pillow, engine_version, resize)" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_settings_that_no_package_decides_are_not_compared(self) -> None:
        require_same_software(fingerprint(model_sha256="another", rendering="cxr_foundation"))

    def test_a_decoder_that_the_launcher_lacks_is_refused(self, install: Install) -> None:
        """The output would not record which version of it made its records."""
        launcher = fingerprint()
        install(OPTIONAL, "1.0")
        with pytest.raises(MachineFault, match=rf"\(decoders\.{OPTIONAL}\)"):
            require_same_software(launcher)

    def test_a_decoder_that_only_the_launcher_has_is_refused(self, install: Install) -> None:
        """Its images would fail here and not on another worker."""
        install(OPTIONAL, "1.0")
        launcher = fingerprint()
        install(OPTIONAL, None)
        with pytest.raises(MachineFault, match=rf"\(decoders\.{OPTIONAL}\)"):
            require_same_software(launcher)


class TestOutputConfig:
    def test_it_comes_back(self, tmp_path: Path) -> None:
        assert read_output_config(str(tmp_path)) is None
        for config in (OutputConfig(fingerprint(), 4096), OutputConfig(fingerprint(), 5504)):
            write_output_config(str(tmp_path), config)
            assert read_output_config(str(tmp_path)) == config

    @pytest.mark.parametrize("content", ["{]", "[]", "{}", '{"embedding_size": null}', "\0"])
    def test_a_damaged_one_is_the_users_to_decide(self, tmp_path: Path, content: str) -> None:
        (tmp_path / CONFIG_NAME).write_text(content)
        with pytest.raises(UsageError, match=r"is damaged.*--overwrite"):
            read_output_config(str(tmp_path))

    def test_a_file_has_none(self, tmp_path: Path) -> None:
        (tmp_path / "embeddings.npz").write_bytes(b"")
        assert read_output_config(str(tmp_path / "embeddings.npz")) is None

    def test_one_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        (tmp_path / CONFIG_NAME).mkdir()
        with pytest.raises(UsageError, match=f"{CONFIG_NAME} cannot be read: Is a directory"):
            read_output_config(str(tmp_path))
