"""The main job on archives: the records of plain files, and a reason for what cannot be read."""

from __future__ import annotations

import gzip
import signal
import subprocess
import time
from pathlib import Path

import archive_files
import numpy as np
import pytest
from archive_files import KINDS, write_archive
from builders import GRADIENT, make_dicom
from running import command, records, run_here, table

import cxr_embed
from cxr_embed.cli import main
from cxr_embed.errors import ImageRejected
from cxr_embed.records import decode_record


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    names = ["p10/1.dcm", "p10/2.dcm.gz", "p11/s5/3", "ä/4.dcm"]
    images = [make_dicom(np.roll(GRADIENT, 31 * number)) for number in range(4)]
    images[1] = gzip.compress(images[1])
    return dict(zip(names, images, strict=True)) | {"p10/README.txt": b"not an image"}


def without_ids(found: dict[str, bytes]) -> dict[str, list[float]]:
    return {name: list(decode_record(data).embedding) for name, data in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_members_give_the_records_of_plain_files(
    kind: str, files: dict[str, bytes], tmp_path: Path, tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, data in files.items():
        path = tmp_path / "plain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    archive = write_archive(tmp_path / f"all.{kind}", files)
    flags = {"model_path": tiny_model, "output_layout": "mirror"}
    plain, packed = tmp_path / "out_plain", tmp_path / "out_packed"
    assert run_here(capsys, input_path=tmp_path / "plain", output_path=plain, **flags).status == 0
    assert run_here(capsys, input_path=archive, output_path=packed, **flags).status == 0

    assert len(records(packed)) == 4
    assert without_ids(records(packed)) == without_ids(records(plain))
    for name, data in records(packed).items():
        image_id = decode_record(data).image_id
        assert image_id.startswith(f"{archive}!/{Path(name).parent}/")
    of_plain = {Path(row["path"]).name: row for row in table(plain, "embedded")}
    for row in table(packed, "embedded"):
        same = of_plain[Path(row["path"]).name]
        assert (row["bytes"], row["crc32c"]) == (same["bytes"], same["crc32c"])
        assert row["record"] == same["record"]
    assert [row["reason"] for row in table(packed, "skipped")] == ["not_an_image"]


def test_what_a_zip_holds_of_bad_members_fails_with_a_reason(
    files: dict[str, bytes], tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = files["p10/1.dcm"]
    archive = write_archive(
        tmp_path / "bad.zip",
        [
            ("good.dcm", image),
            ("secret.dcm", image),
            ("lzma.dcm", image),
            ("deflated.dcm", image),
            ("../up.dcm", image),
            ("/etc/absolute.dcm", image),
            ("inner.zip", (write_archive(tmp_path / "inner.zip", files)).read_bytes()),
            ("stored.dcm", image + b"stored"),
            ("__MACOSX/._good.dcm", b"fork"),
            ("._good.dcm", b"fork"),
        ],
    )
    archive_files.encrypt(archive, "secret.dcm")
    archive_files.set_method(archive, "lzma.dcm", 14)
    archive_files.flip(archive, archive_files.data_at(archive, image + b"stored") + 3000)
    archive_files.flip(archive, archive_files.data_at(archive, b"deflated.dcm") + 40)
    out = tmp_path / "out"
    ran = run_here(capsys, input_path=archive, output_path=out, model_path=tiny_model)
    assert ran.status == 1, ran.err
    failed = {
        row["path"].removeprefix(f"{archive}!/"): row["reason"] for row in table(out, "failures")
    }
    assert failed == {
        "secret.dcm": "encrypted_member",
        "lzma.dcm": "unsupported_member",
        "deflated.dcm": "damaged_member",
        "stored.dcm": "damaged_member",
        "../up.dcm": "unsafe_member",
        "/etc/absolute.dcm": "unsafe_member",
    }
    assert [Path(row["path"]).name for row in table(out, "skipped")] == ["inner.zip"]
    assert set(records(out)) == {"good.tfrecord"}
    again = run_here(capsys, input_path=archive, output_path=out, model_path=tiny_model)
    assert again.status == 1
    assert "1 image already there" in again.err


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_is_cut_short_is_named_before_anything_runs(
    kind: str, files: dict[str, bytes], tmp_path: Path, tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    archive = write_archive(tmp_path / "in" / f"cut.{kind}", files)
    (tmp_path / "in/0.dcm").write_bytes(files["p10/1.dcm"])
    data = archive.read_bytes()
    for size in (len(data) // 2, 3, 0):
        archive.write_bytes(data[:size])
        ran = run_here(
            capsys, input_path=tmp_path / "in", output_path=tmp_path / "out",
            model_path=tiny_model, search_archives=True,
        )  # fmt: skip
        assert ran.status == 2
        assert str(archive) in ran.err
        assert len(ran.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_archives_in_a_folder_are_opened_on_request(
    files: dict[str, bytes], tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.dcm").write_bytes(files["p10/1.dcm"])
    write_archive(tmp_path / "in/2020/a.zip", files)
    write_archive(tmp_path / "in/2020/b.tgz", files)
    flags = {"input_path": tmp_path / "in", "model_path": tiny_model}
    ran = run_here(capsys, output_path=tmp_path / "closed", **flags)
    assert ran.status == 0
    assert set(records(tmp_path / "closed")) == {"1.tfrecord"}
    assert "--search_archives" in ran.err
    flags["search_archives"] = True
    ran = run_here(capsys, output_path=tmp_path / "flat", **flags)
    assert ran.status == 2
    assert "a.zip!/p10/1.dcm" in ran.err
    assert "--output_layout=mirror" in ran.err
    flags["output_layout"] = "mirror"
    assert run_here(capsys, output_path=tmp_path / "out", **flags).status == 0
    below = {"p10/1", "p10/2", "p11/s5/3", "ä/4"}
    assert set(records(tmp_path / "out")) == {"1.tfrecord"} | {
        f"2020/{archive}/{name}.tfrecord" for archive in ("a.zip", "b.tgz") for name in below
    }


def test_other_programs_take_the_address_of_a_member(
    files: dict[str, bytes], tmp_path: Path, small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = write_archive(tmp_path / "all.zip", files)
    archive_files.encrypt(archive, "ä/4.dcm")
    out, member = tmp_path / "out", f"{archive}!/p10/1.dcm"
    ran = run_here(capsys, input_path=archive, output_path=out, model_path=small_model)
    assert ran.status == 1
    assert main.main(["inspect", member]) == 0
    assert "72 x 64" in capsys.readouterr().out
    for name in ("ä/4.dcm", "missing.dcm"):
        assert main.main(["inspect", f"{archive}!/{name}"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert main.main(["verify", f"--input_path={out}", f"--inputs={archive}"]) == 1
    assert "failed, read: encrypted_member" in capsys.readouterr().out
    assert main.main(["search", f"--input_path={out}", f"--query={member}", "--k=1"]) == 0
    (tmp_path / "list.txt").write_text(f"{archive}!/p11/s5/3\n{member}\n{archive}!/no.dcm\n")
    listed = tmp_path / "listed"
    ran = run_here(
        capsys, input_list=tmp_path / "list.txt", output_path=listed, model_path=small_model,
        output_layout="mirror",
    )  # fmt: skip
    assert ran.status == 1
    assert set(records(listed)) == {"p10/1.tfrecord", "p11/s5/3.tfrecord"}
    assert [row["reason"] for row in table(listed, "failures")] == ["read_error"]


def test_a_member_is_read_and_rendered_by_its_address(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    archive = write_archive(tmp_path / "all.tgz", files)
    radiograph = cxr_embed.read_radiograph(f"{archive}!/p10/2.dcm.gz")
    plain = cxr_embed.read_radiograph(files["p10/2.dcm.gz"])
    assert np.array_equal(radiograph.pixels, plain.pixels)
    with pytest.raises(FileNotFoundError, match="no such member"):
        cxr_embed.read_radiograph(f"{archive}!/p10/3.dcm")
    with pytest.raises(ImageRejected, match="too_large"):
        cxr_embed.read_radiograph(f"{archive}!/p10/1.dcm", max_pixels=10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_killed_run_is_taken_up_again(
    kind: str, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {f"{n:03d}.dcm": make_dicom(np.roll(GRADIENT, 31 * n)) for n in range(150)}
    archive = write_archive(tmp_path / f"all.{kind}", images)
    flags = {"input_path": archive, "model_path": tiny_model}
    assert run_here(capsys, output_path=tmp_path / "undisturbed", **flags).status == 0
    output = tmp_path / "killed"
    with subprocess.Popen(
        command(output_path=output, **flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while len(list(output.glob("*.tfrecord"))) < 20 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run_here(capsys, output_path=output, **flags).status == 0
    assert records(output) == records(tmp_path / "undisturbed")
