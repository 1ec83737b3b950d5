"""docs/mimic.md from end to end, on a small folder in MIMIC-CXR's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import GRADIENT, make_dicom
from running import arguments_of, run_here, table

import cxr_embed
from cxr_embed.cli import main as cli_main
from cxr_embed.cli import pack, verify

ROOT = Path(__file__).resolve().parents[2]
FRONTAL = {
    "files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014": "PA",
    "files/p10/p10000032/s53189527/2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab": "AP",
    "files/p11/p11000011/s51029426/c6ae5c41-6be02a4c-a0b3b1c6-2d18a3b1-1c8a7d11": None,
}
LATERAL = "files/p10/p10000032/s50414267/174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962"
BROKEN = "files/p12/p12000022/s52000001/0a0a0a0a-b0ded155-c0de8eb9-c124d10e-00000000"


@pytest.fixture(name="download")
def _download(tmp_path: Path) -> Path:
    """What `wget -r` leaves: images in their folders, and other files around them."""
    root = tmp_path / "physionet.org/files/mimic-cxr/2.0.0"
    views = FRONTAL | {LATERAL: "LL"}
    for number, (path, view) in enumerate(views.items()):
        file = root / f"{path}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make_dicom(np.roll(GRADIENT, 700 * number), ViewPosition=view))
    (root / f"{BROKEN}.dcm").parent.mkdir(parents=True)
    (root / f"{BROKEN}.dcm").write_bytes(make_dicom()[:700])
    for name in ("LICENSE.txt", "SHA256SUMS.txt", "index.html", "cxr-record-list.csv.gz"):
        (root / name).write_bytes(b"no image")
    return root


def test_from_the_download_to_a_packed_verified_data_set(
    download: Path, tmp_path: Path, small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, packed = tmp_path / "embeddings", tmp_path / "packed"

    def embed() -> int:
        flagfile = f"--flagfile={ROOT / 'configs/mimic_cxr.flags'}"
        flags = {"input_path": download, "output_path": output, "model_path": small_model}
        return run_here(capsys, flagfile, **flags).status

    def look(folder: Path, *extra: str, **flags: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        arguments = arguments_of(input_path=folder, verbosity=-1, **flags)
        status = cli_main.guarded(verify.main, [*arguments, *extra])
        return status, capsys.readouterr().out.splitlines()

    assert embed() == 0
    records = {str(path.relative_to(output)) for path in output.rglob("*.tfrecord")}
    assert records == {f"{path}.tfrecord" for path in FRONTAL}
    assert [row["reason"] for row in table(output, "skipped")].count("not_frontal") == 1
    missing = f"missing {download / BROKEN}.dcm: failed, decode: truncated"
    assert look(output, inputs=download) == (1, [missing])

    torn = output / f"{next(iter(FRONTAL))}.tfrecord"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-1])
    assert look(output, "--repair")[0] == 1
    assert not torn.exists()
    assert embed() == 0
    assert torn.read_bytes() == whole
    assert look(output) == (0, [])

    done = pack.main(arguments_of(input_path=output, output_path=packed, verbosity=-1))
    assert done == 0
    assert look(packed) == (0, [])
    frame = cxr_embed.load_embeddings(packed).to_pandas()
    assert frame.subject_id.tolist() == [10000032, 10000032, 11000011]
    assert frame.study_id.tolist() == [50414267, 53189527, 51029426]
    card = (packed / "README.md").read_text()
    assert "1 not_frontal" in card
    assert "| rendering | cxr_foundation |" in card
    assert str(tmp_path) not in card
