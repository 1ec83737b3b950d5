"""The list of images for workers elsewhere."""

from __future__ import annotations

from pathlib import Path

from cxr_embed.work_list import read_work_list, write_work_list

from cxr_embed.elements import ImageRef


def test_references_come_back_as_they_were(tmp_path: Path) -> None:
    odd = b"b\xff.dcm".decode("utf-8", "surrogateescape")
    refs = [
        ImageRef("gs://b/é 1.dcm", "é 1", "p1/é 1.tfrecord", True),
        ImageRef(odd, "b", 'x"\n.tfrecord'),
    ]
    (name,) = write_work_list(str(tmp_path), refs)
    assert read_work_list(name) == refs


def test_nothing_to_do_is_no_file(tmp_path: Path) -> None:
    assert write_work_list(str(tmp_path), []) == []
