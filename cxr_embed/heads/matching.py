"""Which embedding a label belongs to, whatever form its image's name has.

A label's key and an embedding's `image/id` are paths of which either may be the longer: one must
end, folder by folder, in the other. `gs://b/files/p10/x.dcm`, `files/p10/x.dcm`, `x.dcm` and the
dicom id `x` all name the same image, and `other/x.dcm` does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from cxr_embed import file_types
from cxr_embed.elements import RECORD_SUFFIX, dicom_id_of
from cxr_embed.errors import UsageError


class ImageIndex:
    """Finds embeddings by any form of their images' names.

    Args:
        ids: dicom ids.
        image_ids: paths or URIs of the images, in the same order.
    """

    def __init__(self, ids: Sequence[str], image_ids: Sequence[str]) -> None:
        self._image_ids = image_ids
        self._rows: dict[str, list[int]] = {}
        for row, (name, path) in enumerate(zip(ids, image_ids, strict=True)):
            for key in {name, _stem(path)}:
                self._rows.setdefault(key, []).append(row)

    def find(self, key: str) -> int | None:
        """Returns the row of the embedding that `key` names, or None.

        Raises:
            UsageError: it names several.
        """
        rows = self._rows.get(_stem(key)) or self._rows.get(PurePosixPath(key).name, [])
        if len(rows) == 1 and "/" not in key:
            return rows[0]
        rows = [row for row in rows if _agree(key, self._image_ids[row])]
        for narrower in (self._same_extension, self._same_path):
            if len(rows) > 1:
                rows = narrower(key, rows) or rows
        if len(rows) > 1:
            named = " and ".join(self._image_ids[row] for row in rows[:2])
            more = f" (and {len(rows) - 2} more)" if len(rows) > 2 else ""
            raise UsageError(
                f"the label of {key} fits several embeddings, {named}{more}: name the image by "
                "more of its path"
            )
        return rows[0] if rows else None

    def _same_extension(self, key: str, rows: list[int]) -> list[int]:
        return [row for row in rows if _extension(key) == _extension(self._image_ids[row])]

    def _same_path(self, key: str, rows: list[int]) -> list[int]:
        return [row for row in rows if self._image_ids[row] == key]


def _stem(path: str) -> str:
    return dicom_id_of(path.removesuffix(RECORD_SUFFIX))


def _extension(path: str) -> str:
    found = file_types.IMAGE_NAME.search(PurePosixPath(path).name)
    return found[0].lower() if found else ""


def _agree(one: str, other: str) -> bool:
    """Whether the shorter list of folders is the end of the longer one."""
    short, long = sorted((_folders(one), _folders(other)), key=len)
    return not short or long[-len(short) :] == short


def _folders(path: str) -> list[str]:
    parts = path.partition("://")[2] or path
    return [part for part in parts.split("/")[:-1] if part not in ("", ".", "..")]
