"""From what the user named to the list of images, and each one's place in the output."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from cxr_embed import file_types, storage
from cxr_embed.elements import RECORD_SUFFIX, ImageRef, dicom_id_of
from cxr_embed.errors import UsageError

# An index of other files, never an image.
_DICOM_DIRECTORY = "DICOMDIR"


def find_images(
    input_path: str | None,
    input_list: str | None = None,
    *,
    layout: str = "flat",
    limit: int = 0,
    output_path: str | None = None,
) -> list[ImageRef]:
    """Finds the images to embed.

    Args:
        input_path: a folder (searched recursively), a file, a glob, or gs://bucket/prefix.
        input_list: a text file, local or gs://, with one image path a line.
        layout: `flat`, or `mirror` to keep the folders below the input.
        limit: only the first so many in sorted order; 0 is all.
        output_path: left out of the search where it lies below the input.

    Returns:
        References sorted by path.

    Raises:
        UsageError: nothing found, or two images would write the same record.
    """
    if input_list:
        paths, root = _read_list(input_list), None
        is_listed = True
    elif input_path:
        paths, root, is_listed = _search(input_path, output_path, limit)
    else:
        raise UsageError("pass --input_path (a folder, file, glob or gs:// path) or --input_list")
    paths = _first(sorted(set(paths)), limit)
    if not paths or (not is_listed and not _holds_an_image(paths)):
        raise UsageError(f"no image found: {input_list or input_path} holds no DICOM, PNG or JPEG")
    root = _common_folder(paths) if root is None else root
    refs = [
        ImageRef(path, dicom_id_of(path), _folder(path, root, layout), is_listed) for path in paths
    ]
    _refuse_collisions(refs, layout)
    return refs


def _search(
    input_path: str, output_path: str | None, limit: int
) -> tuple[list[str], str | None, bool]:
    """Returns the paths found, the folder that `mirror` counts from, and whether it is one file."""
    if storage.is_remote(input_path):
        return _search_bucket(input_path, output_path, limit)
    if Path(input_path).is_dir():
        return _below(input_path, output_path), input_path, False
    if Path(input_path).exists():
        return [input_path], str(Path(input_path).parent), True
    if not re.search(r"[*?\[]", input_path):
        raise UsageError(f"--input_path {input_path} does not exist")
    paths: list[str] = []
    for match in storage.expand(input_path):
        paths += _below(match, output_path) if Path(match).is_dir() else [match]
    fixed = re.split(r"[*?\[]", input_path, maxsplit=1)[0]
    return paths, str(Path(fixed).parent if not fixed.endswith("/") else fixed or "."), False


def _search_bucket(
    input_path: str, output_path: str | None, limit: int
) -> tuple[list[str], str | None, bool]:
    """As `_search`. A bucket is listed in sorted order, so a limit ends the listing early."""
    folder = input_path.rstrip("/")
    inside = _relative_inside(output_path, folder)
    try:
        if re.search(r"[*?\[]", input_path):
            return _first(storage.expand(input_path), limit), None, False
        below = (
            f"{folder}/{path}" for path in storage.list_paths(folder) if _is_input(path, inside)
        )
        if found := _first(below, limit):
            return found, folder, False
        if not input_path.endswith("/") and storage.exists(input_path):
            return [input_path], input_path.rpartition("/")[0], True
    except OSError as error:
        raise UsageError(f"--input_path cannot be listed: {error}") from error
    return [], folder, False


def _below(folder: str, output_path: str | None) -> list[str]:
    inside = _relative_inside(output_path, folder)
    start = storage.start_of(folder)
    return [f"{start}{path}" for path in storage.list_paths(folder) if _is_input(path, inside)]


def _is_input(path: str, inside: str) -> bool:
    """Leaves out what cannot be an image, and the output where it lies `inside` the input."""
    return (
        _may_be_image(path)
        and not (inside and path.startswith(inside))
        and not path.startswith("_runs/")
    )


def _relative_inside(output_path: str | None, folder: str) -> str:
    """Returns `sub/folder/` where the output lies strictly below the input, else nothing."""
    if not output_path or storage.is_remote(output_path) != storage.is_remote(folder):
        return ""
    if storage.is_remote(folder):
        output = output_path.rstrip("/") + "/"
        return output.removeprefix(f"{folder}/") if output.startswith(f"{folder}/") else ""
    relative = os.path.relpath(Path(output_path).resolve(), Path(folder).resolve())
    return "" if relative.startswith("..") or relative == "." else f"{relative}/"


def _may_be_image(path: str) -> bool:
    """Leaves out hidden files and folders, DICOMDIR, and what this program writes."""
    name = path.rpartition("/")[2]
    return not (
        path.startswith(".")
        or "/." in path
        or name == _DICOM_DIRECTORY
        or name.endswith(RECORD_SUFFIX)
        or name == "_embedding_config.json"
    )


def _first(paths: Iterable[str], limit: int) -> list[str]:
    """Returns paths up to the `limit`-th that is named like an image; all where it is 0."""
    if not limit:
        return list(paths)
    taken: list[str] = []
    counted = 0
    for path in paths:
        taken.append(path)
        counted += not file_types.OTHER_NAME.search(path)
        if counted == limit:
            break
    return taken


def _holds_an_image(paths: Iterable[str]) -> bool:
    """Whether anything found can be an image: by its name, or else by its first bytes."""
    others = []
    for path in paths:
        if not file_types.OTHER_NAME.search(path):
            return True
        others.append(path)
    return any(_sniffs_as_image(path) for path in others)


def _sniffs_as_image(path: str) -> bool:
    if storage.is_remote(path):
        return False
    try:
        with Path(path).open("rb") as file:
            return file_types.sniff(file.read(512)) is not None
    except OSError:
        return False


def _read_list(input_list: str) -> list[str]:
    try:
        text = storage.read_bytes(input_list).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UsageError(
            f"--input_list {input_list} cannot be read: {error.strerror or error}"
        ) from error
    return [line.strip("\r\n") for line in text.split("\n") if line.strip()]


def _common_folder(paths: list[str]) -> str:
    folders = {str(PurePosixPath(path.replace("gs://", "gs:/")).parent) for path in paths}
    try:
        return os.path.commonpath(folders).replace("gs:/", "gs://")
    except ValueError:  # absolute and relative paths mixed: only mirrored layouts care
        return ""


def _folder(path: str, root: str, layout: str) -> str:
    """Returns the folders below the root, which the layout `mirror` keeps."""
    if layout == "flat":
        return ""
    if storage.is_remote(path):
        below = path.removeprefix(root).lstrip("/")
    else:
        below = os.path.relpath(path, root or ".")
    folder = PurePosixPath(below).parent
    if ".." in folder.parts or folder.is_absolute():
        raise UsageError(f"--output_layout=mirror: {path} has no place below {root}")
    return "" if folder == PurePosixPath(".") else str(folder)


def _refuse_collisions(refs: list[ImageRef], layout: str) -> None:
    first: dict[str, str] = {}
    clashes: list[tuple[str, str]] = []
    for ref in refs:
        other = first.setdefault(ref.record, ref.path)
        if other != ref.path:
            clashes.append((other, ref.path))
    if not clashes:
        return
    more = f" (and {len(clashes) - 1} more pairs)" if len(clashes) > 1 else ""
    remedy = (
        "pass --output_layout=mirror to keep the input's folders"
        if layout == "flat"
        else "rename one of them"
    )
    raise UsageError(
        f"{clashes[0][0]} and {clashes[0][1]} would write the same record{more}: {remedy}"
    )
