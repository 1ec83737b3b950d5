"""What the user named, to a list of images."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from builders import make_dicom

from cxr_embed import storage
from cxr_embed.elements import dicom_id_of as dicom_id
from cxr_embed.errors import UsageError
from cxr_embed.storage.find_images import find_images


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(folder: Path, *arguments: object, **options: object) -> list[str]:
    refs = find_images(str(folder), *arguments, **options)  # type: ignore[arg-type]
    return [os.path.relpath(ref.path, folder) for ref in refs]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b/x.dcm", "x"),
        ("x.DICOM", "x"),
        ("x.dic", "x"),
        ("x.ima", "x"),
        ("x.JPG.gz", "x"),
        ("x.jpeg", "x"),
        ("x.png", "x"),
        ("1.2.840.113619.4", "1.2.840.113619.4"),
        ("x.dcm.bak", "x.dcm.bak"),
        ("x.gz", "x.gz"),
        ("IM0001", "IM0001"),
        ("x.dcm.dcm", "x.dcm"),
        (".dcm", ".dcm"),
        ("gs://bucket/p/x.dcm", "x"),
    ],
)
def test_dicom_id_is_the_name_without_a_known_extension(name: str, expected: str) -> None:
    assert dicom_id(name) == expected


class TestSearch:
    def test_a_folder_is_searched_recursively_and_sorted(self, tmp_path: Path) -> None:
        touch(tmp_path, "b.dcm", "a/z.dcm", "a/IM1", "c.png")
        assert found(tmp_path) == ["a/IM1", "a/z.dcm", "b.dcm", "c.png"]

    def test_image_ids_are_paths_as_they_were_given(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch(tmp_path, "in/a.dcm")
        monkeypatch.chdir(tmp_path)
        assert [ref.path for ref in find_images("in")] == ["in/a.dcm"]
        assert [ref.path for ref in find_images("in/")] == ["in/a.dcm"]

    def test_hidden_files_indexes_and_own_outputs_are_left_out(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.dcm", ".DS_Store", ".git/x", "DICOMDIR", "a.tfrecord")
        touch(tmp_path, "_embedding_config.json", "_runs/1/failures.csv", "._b.dcm", "p/.q/c.dcm")
        assert found(tmp_path) == ["a.dcm"]

    def test_only_this_programs_run_folders_are_left_out(self, tmp_path: Path) -> None:
        touch(tmp_path, "_runs/mine.dcm", "a/_runs/x/y.dcm", "a/my_runs/z.dcm")
        touch(tmp_path, "out/_embedding_config.json", "out/_runs/1/drawn.png", "out/b.dcm")
        expected = ["_runs/mine.dcm", "a/_runs/x/y.dcm", "a/my_runs/z.dcm", "out/b.dcm"]
        assert found(tmp_path) == expected
        assert found(tmp_path, output_path="elsewhere") == expected
        globbed = find_images(f"{tmp_path}/**")
        assert [os.path.relpath(ref.path, tmp_path) for ref in globbed] == expected
        # An output whose config is not written yet is known by its flag.
        assert found(tmp_path, output_path=str(tmp_path)) == expected[1:]

    def test_a_glob_does_not_lead_into_the_output(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.dcm", "out/picture.png", "DICOMDIR")
        refs = find_images(f"{tmp_path}/**", output_path=str(tmp_path / "out"))
        assert [ref.dicom_id for ref in refs] == ["a"]

    def test_an_output_inside_the_input_is_left_out(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.dcm", "out/picture.png")
        assert found(tmp_path, output_path=str(tmp_path / "out")) == ["a.dcm"]

    def test_links_are_followed_but_not_in_circles(self, tmp_path: Path) -> None:
        touch(tmp_path, "in/a.dcm", "elsewhere/b.dcm")
        (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "in/circle").symlink_to(tmp_path / "in")
        assert found(tmp_path / "in") == ["a.dcm", "link/b.dcm"]

    def test_globs_stay_in_their_folder_unless_told(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.dcm", "b.png", "s/c.dcm")
        assert found(tmp_path / "*.dcm")[0].endswith("a.dcm")
        assert [r.dicom_id for r in find_images(f"{tmp_path}/**/*.dcm")] == ["a", "c"]
        assert [r.dicom_id for r in find_images(f"{tmp_path}/s*")] == ["c"]

    def test_a_name_with_brackets_is_a_name_first(self, tmp_path: Path) -> None:
        touch(tmp_path, "a[1].dcm")
        assert [r.dicom_id for r in find_images(f"{tmp_path}/a[1].dcm")] == ["a[1]"]

    def test_limit_takes_the_first_in_sorted_order(self, tmp_path: Path) -> None:
        touch(tmp_path, "c.dcm", "a.dcm", "b.dcm")
        assert found(tmp_path, limit=2) == ["a.dcm", "b.dcm"]

    def test_limit_does_not_count_what_is_no_image(self, tmp_path: Path) -> None:
        touch(tmp_path, "README.txt", "a.dcm", "b.dcm")
        assert found(tmp_path, limit=1) == ["README.txt", "a.dcm"]


class TestNothingFound:
    @pytest.mark.parametrize("name", ["nowhere", "nowhere/*.dcm"])
    def test_a_path_that_leads_nowhere(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match="nowhere"):
            find_images(str(tmp_path / name))

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no image found"):
            find_images(str(tmp_path))

    def test_a_folder_of_reports(self, tmp_path: Path) -> None:
        touch(tmp_path, "report.txt", "table.csv.gz")
        with pytest.raises(UsageError, match="no image found"):
            find_images(str(tmp_path))

    def test_content_counts_not_the_name(self, tmp_path: Path) -> None:
        (tmp_path / "odd.txt").write_bytes(make_dicom())
        assert found(tmp_path) == ["odd.txt"]


class TestList:
    def test_one_path_a_line(self, tmp_path: Path) -> None:
        listing = tmp_path / "list.txt"
        listing.write_bytes("\ufeffz/b.dcm\r\na/a.dcm\n\nz/b.dcm\n".encode())
        refs = find_images(None, str(listing))
        assert [ref.path for ref in refs] == ["a/a.dcm", "z/b.dcm"]
        assert all(ref.is_listed for ref in refs)

    def test_a_missing_or_empty_list(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot be read"):
            find_images(None, str(tmp_path / "none.txt"))
        touch(tmp_path, "x")
        (tmp_path / "empty.txt").write_text("\n")
        with pytest.raises(UsageError, match="no image found"):
            find_images(None, str(tmp_path / "empty.txt"))

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b"b\0.dcm", "line 2 contains a NUL"),
            (b"b\xe9.dcm", "line 2 is not UTF-8"),
            (b"hdfs://host/b.dcm", "line 2 hdfs://host/b.dcm: hdfs:// is not supported"),
            (b"gs://user:secret@bucket/b.dcm", "line 2: this gs:// address contains a user name"),
        ],
    )
    def test_a_line_that_cannot_be_a_path_is_named_by_its_number(
        self, tmp_path: Path, line: bytes, problem: str
    ) -> None:
        listing = tmp_path / "list.txt"
        listing.write_bytes(b"a-rather-long-name/a.dcm\n" + line + b"\nc.dcm\n")
        with pytest.raises(UsageError) as raised:
            find_images(None, str(listing))
        assert f"--input_list {listing}, {problem}" in str(raised.value)
        assert "secret" not in str(raised.value)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
    def test_utf_16_is_called_that(self, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "list.txt").write_bytes("a.dcm\r\nb.dcm\r\n".encode(encoding))
        with pytest.raises(UsageError, match="is UTF-16: save it as UTF-8"):
            find_images(None, str(tmp_path / "list.txt"))

    def test_a_bucket_that_cannot_exist_is_one_images_fault(self, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("gs://Bad_Bucket!/a.dcm\n/data/b.dcm\n")
        refs = find_images(None, str(tmp_path / "list.txt"))
        assert [ref.dicom_id for ref in refs] == ["b", "a"]


class TestWhatCannotBeAPlace:
    @pytest.mark.parametrize("path", ["a\0b", "hdfs://host/x", "gs://user:x@bucket", "gs://B!/x"])
    @pytest.mark.parametrize("flag", ["input_path", "input_list", "output_path"])
    def test_it_is_refused_by_its_flag(self, tmp_path: Path, flag: str, path: str) -> None:
        touch(tmp_path, "a.dcm")
        flags = {"input_path": str(tmp_path), flag: path}
        with pytest.raises(UsageError, match=f"^--{flag}"):
            find_images(**flags)  # type: ignore[arg-type]


class TestRecords:
    def test_flat(self, tmp_path: Path) -> None:
        touch(tmp_path, "p10/s5/x.dcm")
        assert [r.record for r in find_images(str(tmp_path))] == ["x.tfrecord"]

    def test_mirror_keeps_the_folders(self, tmp_path: Path) -> None:
        touch(tmp_path, "p10/s5/x.dcm", "y.dcm")
        refs = find_images(str(tmp_path), layout="mirror")
        assert [r.record for r in refs] == ["p10/s5/x.tfrecord", "y.tfrecord"]

    def test_mirror_of_a_glob_counts_from_its_fixed_part(self, tmp_path: Path) -> None:
        touch(tmp_path, "files/p10/s5/x.dcm", "files/p11/y.dcm")
        refs = find_images(f"{tmp_path}/files/*/**/*.dcm", layout="mirror")
        assert [r.record for r in refs] == ["p10/s5/x.tfrecord", "p11/y.tfrecord"]

    def test_mirror_of_a_list_counts_from_the_common_folder(self, tmp_path: Path) -> None:
        listing = tmp_path / "l.txt"
        listing.write_text("/d/files/p10/x.dcm\n/d/files/p11/s/y.dcm\n")
        refs = find_images(None, str(listing), layout="mirror")
        assert [r.record for r in refs] == ["p10/x.tfrecord", "p11/s/y.tfrecord"]

    def test_a_collision_names_both_and_the_way_out(self, tmp_path: Path) -> None:
        touch(tmp_path, "s1/x.dcm", "s2/x.dcm")
        with pytest.raises(UsageError, match=r"s1/x.dcm and .*s2/x.dcm.*--output_layout=mirror"):
            find_images(str(tmp_path))
        assert len(find_images(str(tmp_path), layout="mirror")) == 2

    def test_a_collision_that_mirroring_does_not_solve(self, tmp_path: Path) -> None:
        touch(tmp_path, "x.dcm", "x.png")
        with pytest.raises(UsageError, match="rename one of them"):
            find_images(str(tmp_path), layout="mirror")

    def test_files_that_are_no_images_collide_with_nothing(self, tmp_path: Path) -> None:
        touch(tmp_path, "s1/notes.txt", "s2/notes.txt", "s1/x.dcm", "s2/y.dcm")
        for folder in ("s1", "s2"):
            (tmp_path / folder / "table.csv.gz").write_bytes(gzip.compress(b"a,b"))
        assert len(find_images(str(tmp_path))) == 6

    def test_images_collide_whatever_they_are_called(self, tmp_path: Path) -> None:
        touch(tmp_path, "s1/odd.txt")
        for folder in ("s2", "s3"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "odd.txt").write_bytes(make_dicom())
        with pytest.raises(UsageError, match=r"s2/odd.txt and .*s3/odd.txt"):
            find_images(str(tmp_path))

    def test_only_colliding_files_of_other_kinds_are_opened(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.dcm", "s1/a.txt", "s2/b.txt", "s1/x.txt", "s2/x.txt", "s2/c.dcm")
        opened: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            read = storage.read_start
            patch.setattr(storage, "read_start", lambda path: opened.append(path) or read(path))
            find_images(str(tmp_path))
        assert [os.path.relpath(path, tmp_path) for path in opened] == ["s1/x.txt", "s2/x.txt"]
