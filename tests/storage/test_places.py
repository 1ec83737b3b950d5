"""What can be an address, and what is refused before anything is opened."""

from __future__ import annotations

import pytest

from cxr_embed import storage
from cxr_embed.errors import UsageError


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
