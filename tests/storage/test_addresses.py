"""What can be an address, and what is refused before anything is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cxr_embed import storage
from cxr_embed.errors import UsageError
from cxr_embed.storage.addresses import holds_only_images


@pytest.mark.parametrize(
    "path",
    [
        "in", "/data/a://b", "./s3://x", "C:\\x\\y", "C:/x", "C://x", "a@b:c", "gs://b", "gs://b/",
        "gs://my-bucket_1.example/a@b:c?d", "", "s3://Old_bucket/a@b:c?d", "az://con-tainer/x",
    ],
)  # fmt: skip
def test_paths_and_addresses_that_can_be(path: str) -> None:
    storage.check_place(path, "--input_path")


@pytest.mark.parametrize(
    "path",
    ["hdfs://host/x", "abfs://c/x", "http://host/x.dcm", "file:///x", "GS://b/x", "x+y-z.1://b"],
)
def test_other_kinds_of_places_are_refused_by_name(path: str) -> None:
    kind = path.partition("://")[0]
    with pytest.raises(UsageError, match=f"--output_path .*{kind.replace('+', '.')}:// is not"):
        storage.check_place(path, "--output_path")
    assert not storage.is_remote(path)
    with pytest.raises(OSError, match="is not supported"):
        storage.write_whole(path, b"x")


@pytest.mark.parametrize(
    "path",
    [
        "gs://user:secret@bucket/x", "gs://secret@bucket/x", "https://user:secret@host/x",
        "https://user:sec/secret@host/x", "gs://user:sec/secret@bucket", "s3://k:secret@host:9000/b",
        "az://secret@account.blob.core.windows.net/x", "s3://k:sec/secret@bucket/x",
        "https://host/x?token=secret",
    ],
)  # fmt: skip
def test_credentials_are_refused_and_not_repeated(path: str) -> None:
    with pytest.raises(UsageError, match="--input_path") as raised:
        storage.check_place(path, "--input_path")
    assert "secret" not in str(raised.value)
    assert "user" not in str(raised.value).replace("a user name", "")


def test_a_nul_is_no_part_of_a_path() -> None:
    with pytest.raises(UsageError, match="--input_path contains a NUL"):
        storage.check_place("in\0put", "--input_path")


@pytest.mark.parametrize(
    "path",
    ["gs://Bad_Bucket!/x", "gs://-b/x", "gs://b-", "gs://B", "s3://b!/x", "s3://-b", "az://A/x",
     "az://a--b/x", "az://ab/x"],
)  # fmt: skip
def test_a_bucket_that_cannot_exist_is_refused(path: str) -> None:
    with pytest.raises(
        UsageError, match=r"--output_path .*no (bucket|container) can have this name"
    ):
        storage.check_place(path, "--output_path")
    storage.check_address(path, "a line of a list")
    for act in (storage.read_file, storage.exists, storage.remove, storage.read_bytes):
        with pytest.raises(OSError, match="can have this name"):
            act(path)
    assert "can have this name" in (storage.why_not_writable(path) or "")


@pytest.mark.parametrize("path", ["gs://", "gs:///x", "s3://", "az:///x"])
def test_an_address_has_to_name_a_bucket(path: str) -> None:
    with pytest.raises(UsageError, match=r"names no (bucket|container)"):
        storage.check_place(path, "--input_path")
    with pytest.raises(FileNotFoundError, match=r"names no (bucket|container)"):
        storage.read_file(path)


def test_what_a_path_is() -> None:
    kinds = {
        "in/1.dcm": "disk", "/in/a.zip": "disk", "a.zip!/1.dcm": "member", "gs://b/x": "remote",
        "s3://b/a.tar!/1.dcm": "member", "dicomweb+https://host/root": "remote",
    }  # fmt: skip
    for path, kind in kinds.items():
        assert storage.is_on_disk(path) == (kind == "disk"), path
        assert storage.is_member(path) == (kind == "member"), path
        assert holds_only_images(path) == path.startswith("dicomweb"), path


def test_an_archive_is_a_file_with_the_name_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"x")
    (tmp_path / "folder.zip").mkdir()
    assert storage.is_archive(f"{tmp_path}/a.zip")
    for name in ("folder.zip", "missing.zip", "a.zip!/1.dcm"):
        assert not storage.is_archive(f"{tmp_path}/{name}")


WITHOUT_EXTRAS = """
import sys
for name in ("botocore", "azure.storage", "azure.storage.blob"):
    sys.modules[name] = None  # as if it were not installed
import cxr_embed
from cxr_embed import storage
from cxr_embed.cli import main
for path in ("s3://bucket/x", "az://bucket/x"):
    for read in (storage.read_bytes, cxr_embed.load_embeddings, cxr_embed.read_radiograph):
        try:
            read(path)
        except (cxr_embed.errors.PlaceUnavailable, cxr_embed.errors.UsageError) as error:
            print(error)
    print(main.main(["verify", "--input_path", path]))
"""


def test_a_missing_extra_is_named_before_anything_is_opened() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=True
    )
    for extra, scheme in (("s3", "s3"), ("azure", "az")):
        words = f"{scheme}:// needs other packages: pip install 'cxr-embed[{extra}]'"
        assert done.stdout.count(words) == 3
        assert f"cxr-embed: --input_path {scheme}://bucket/x: {words}\n" in done.stderr
    assert done.stdout.count("\n2\n") == 2
