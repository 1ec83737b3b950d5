"""Folders and files of this machine, those that cannot be read above all."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cxr_embed import storage
from cxr_embed.storage import local
from cxr_embed.storage.files import START_BYTES

try:
    import pwd

    OTHER_USER: int | None = pwd.getpwnam("nobody").pw_uid
except (ImportError, KeyError):
    OTHER_USER = None

AS_OTHER_USER = """
import os, sys
from cxr_embed.storage.find_images import find_images
from cxr_embed import storage
from cxr_embed.errors import UsageError
os.setuid(int(sys.argv[1]))
for act in (lambda p: list(storage.list_paths(p)), lambda p: list(storage.list_files(p)),
            find_images, lambda p: find_images(p + "/**/*.dcm"),
            lambda p: find_images(p + "/*.dcm")):
    try:
        print("found", len(act(sys.argv[2])))
    except (PermissionError, UsageError) as error:
        print(type(error).__name__, error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.dcm", "sub/b.dcm", "sub/deep/c.dcm"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "in"


class TestListing:
    @pytest.mark.skipif(
        OTHER_USER is None or os.geteuid() != 0, reason="only root can become another user"
    )
    def test_a_folder_without_permission_is_an_error_that_names_it(self, folder: Path) -> None:
        secret = folder / "sub" / "deep"
        secret.chmod(0o700)
        for parent in folder.parents:
            if parent.owner() == "root" and str(parent).startswith("/tmp/"):
                parent.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", AS_OTHER_USER, str(OTHER_USER), str(folder)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        paths, files, images, glob, one_folder = done.stdout.splitlines()
        assert paths == files == f"PermissionError [Errno 13] Permission denied: '{secret}'"
        expected = f"Unreachable --input_path cannot be listed: {secret}"
        assert images == f"{expected}: Permission denied"
        assert glob.startswith(expected)
        assert one_folder == "found 1"  # a folder that the glob does not lead to

    def test_a_listing_that_breaks_half_way_is_an_error_that_names_the_folder(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scandir = os.scandir

        class Breaking:
            def __init__(self, entries: Any) -> None:
                self._entries = entries

            def __enter__(self) -> Breaking:
                return self

            def __exit__(self, *_: object) -> None:
                self._entries.close()

            def __iter__(self) -> Iterator[os.DirEntry[str]]:
                yield next(self._entries)
                raise OSError(errno.EIO, "Input/output error")

        def breaking(path: str) -> Any:
            return Breaking(scandir(path)) if Path(path).name == "sub" else scandir(path)

        monkeypatch.setattr(os, "scandir", breaking)
        for listing in (storage.list_paths, storage.list_files):
            with pytest.raises(OSError, match=r"Input/output error.*in/sub"):
                list(listing(str(folder)))
        with pytest.raises(OSError, match=r"in/sub"):
            list(storage.matches(f"{folder}/*/*.dcm"))

    def test_a_folder_that_the_pattern_names_need_not_be_listed(self, folder: Path) -> None:
        found = [path for path, _ in storage.matches(f"{folder}/*/deep/c.dcm")]
        assert found == [f"{folder}/sub/deep/c.dcm"]

    def test_links_to_nowhere_and_to_themselves_are_files(self, folder: Path) -> None:
        (folder / "nowhere").symlink_to(folder / "gone")
        (folder / "itself").symlink_to(folder / "itself")
        assert {"nowhere", "itself"} < {entry.path for entry in storage.list_files(str(folder))}

    def test_globs_do_not_run_in_circles(self, folder: Path) -> None:
        (folder / "sub" / "up").symlink_to(folder)
        found = {path for path, below in storage.matches(f"{folder}/**/c.dcm") if not below}
        assert found == {f"{folder}/sub/deep/c.dcm"}


class TestReadFile:
    def test_it_gives_content_and_checksum(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"123456789")
        assert storage.read_file(str(tmp_path / "x")) == (b"123456789", "e3069283")
        (tmp_path / "empty").write_bytes(b"")
        assert storage.read_file(str(tmp_path / "empty"), len) == (b"", "00000000")

    @pytest.mark.parametrize("size", [10, START_BYTES, START_BYTES + 1, 3_000_000])
    def test_the_first_bytes_decide(self, tmp_path: Path, size: int) -> None:
        data = os.urandom(size)
        (tmp_path / "x").write_bytes(data)
        seen: list[bytes] = []

        def admit(start: bytes) -> int:
            seen.append(start)
            return size

        assert storage.read_file(str(tmp_path / "x"), admit).data == data
        assert seen == [data[:START_BYTES]]
        assert storage.read_start(str(tmp_path / "x")) == data[:START_BYTES]

    def test_a_refusal_passes_unchanged(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(bytes(100))
        error = KeyError("no")

        def admit(start: bytes) -> int:
            raise error

        with pytest.raises(KeyError) as raised:
            storage.read_file(str(tmp_path / "x"), admit)
        assert raised.value is error

    def test_what_is_larger_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "huge").open("wb") as file:
            file.truncate(1 << 40)
        tracemalloc.start()
        try:
            with pytest.raises(storage.FileTooLarge, match=r"huge.*1099511627776 bytes") as raised:
                storage.read_file(str(tmp_path / "huge"), lambda start: 1 << 20)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()
        assert (raised.value.size, raised.value.limit) == (1 << 40, 1 << 20)
        assert pickle.loads(pickle.dumps(raised.value)).size == 1 << 40

    def test_a_file_whose_size_is_not_known_is_bounded_too(self) -> None:
        if not Path("/proc/kallsyms").exists():
            pytest.skip("no /proc here")
        whole = storage.read_file("/proc/kallsyms").data
        assert len(whole) > START_BYTES  # of a file that gives its size as 0
        with pytest.raises(storage.FileTooLarge):
            storage.read_file("/proc/kallsyms", lambda start: START_BYTES)

    def test_what_is_no_ordinary_file_is_an_error_and_no_wait(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
            with pytest.raises(OSError, match=r"regular|directory"):
                storage.read_file(str(path), lambda start: 10)

    @pytest.mark.parametrize("path", ["a\0b", "\udc00\ud800"])
    def test_what_is_no_path_is_an_oserror(self, path: str) -> None:
        with pytest.raises(OSError):
            local.read_file(path)
