"""Finds the images that the input flags name, and the output path of each record."""

from __future__ import annotations

import codecs
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cxr_embed import file_types, members, storage
from cxr_embed.elements import CONFIG_NAME, RECORD_SUFFIX, RUNS_FOLDER, ImageRef, dicom_id_of
from cxr_embed.errors import PlaceUnavailable, Unreachable, UsageError
from cxr_embed.storage import dicomweb_address, globs
from cxr_embed.storage.search_archives import ArchiveSearch

_RUNS = f"{RUNS_FOLDER}/"

# An index of other files (PS3.10 clause 8.6), never an image.
_DICOM_DIRECTORY = "DICOMDIR"


def find_images(
    input_path: str | None,
    input_list: str | None = None,
    *,
    layout: str = "flat",
    limit: int = 0,
    output_path: str | None = None,
    search_archives: bool = False,
    archives: ArchiveSearch | None = None,
    may_be_empty: bool = False,
    dicomweb_query: str | None = None,
) -> list[ImageRef]:
    """Finds the images to embed.

    Args:
        input_path: a folder (searched recursively), a file or a glob, local or in a bucket, an
            address of a DICOMweb store, or an archive, a folder or a member in it.
        input_list: a text file, local or in a bucket, with one image path a line.
        layout: `flat`, or `mirror` to keep the folders below the input.
        limit: maximum number of images, the first in sorted order; 0 is all.
        output_path: excluded from the search if it is below the input.
        search_archives: whether the archives that the search comes across are opened.
        archives: receives what is learnt about archives, and knows those of earlier runs.
        may_be_empty: whether to return an empty list if there is no image.
        dicomweb_query: filters of a search in a DICOMweb store, such as `Modality=DX`.

    Returns:
        References sorted by path.

    Raises:
        Unreachable: the input does not exist, or a part of it cannot be listed.
        UsageError: no image is found, a path is invalid, or two images would write the same record.
    """
    archives = archives or ArchiveSearch()
    if output_path:
        storage.check_place(output_path, "--output_path")
    if dicomweb_query:
        dicomweb_address.check_query(dicomweb_query, input_path)
    if input_list:
        storage.check_place(input_list, "--input_list")
        paths, root = _read_list(input_list), None
        is_listed = True
    elif input_path:
        storage.check_place(input_path, "--input_path")
        try:
            if storage.is_member(input_path) or _is_archive(input_path):
                paths, root, is_listed = _search_archive(input_path, archives)
            else:
                paths, root, is_listed = _search(
                    input_path, output_path, limit, dicomweb_query or ""
                )
                if search_archives or members.is_archive(input_path):
                    paths = list(archives.expand(paths, _may_be_member))
        except OSError as error:
            raise Unreachable(f"--input_path cannot be listed: {_of_place(error)}") from error
    else:
        raise UsageError(
            "pass --input_path (a folder, file or glob, local or in a bucket) or --input_list"
        )
    paths = _first(sorted(set(paths)), limit)
    if not paths or (not is_listed and not _holds_an_image(paths)):
        if may_be_empty:
            return []
        raise UsageError(
            f"no image found: {input_list or input_path} has no DICOM, PNG or JPEG file"
        )
    root = _common_folder(paths) if root is None else root
    refs = [_ref(path, root, layout, is_listed, archives) for path in paths]
    archives.locations.clear()  # the references have them
    _refuse_collisions(refs, layout)
    return refs


def _ref(path: str, root: str, layout: str, is_listed: bool, archives: ArchiveSearch) -> ImageRef:
    ref = ImageRef(path, dicom_id_of(path), "", is_listed, archives.locations.get(path, ""))
    # A refused member may have a path with `..`. It has no record.
    return ref if ref.is_refused else replace(ref, folder=_folder(path, root, layout))


def _is_archive(input_path: str) -> bool:
    """Whether the input is an archive, judged by its name; a glob or a folder is none."""
    is_glob = storage.is_remote(input_path) and globs.has_magic(input_path)
    return not is_glob and storage.is_archive(input_path)


def _search_archive(input_path: str, archives: ArchiveSearch) -> tuple[list[str], str | None, bool]:
    """Does `_search` for an archive, a folder in it, a member, or a glob of its members."""
    archive, inside = members.split(input_path) or (input_path, "")
    found = archives.images_in(archive, _may_be_member)
    if not inside.strip("/"):
        return found, members.join(archive, ""), False
    if globs.has_magic(inside):
        glob = globs.Glob(inside)
        start = members.join(archive, "")
        below = ((path, glob.below(path.removeprefix(start))) for path in found)
        fixed = globs.fixed_folder(inside)
        return [path for path, match in below if match is not None], f"{start}{fixed}", False
    address = members.join(archive, inside.rstrip("/"))
    if address in found:
        return [address], address.rpartition("/")[0], True
    return [path for path in found if path.startswith(f"{address}/")], address, False


def _search(
    input_path: str, output_path: str | None, limit: int, query: str
) -> tuple[list[str], str | None, bool]:
    """Returns the paths found, the root folder for `mirror`, and whether the input is one file."""
    if storage.is_remote(input_path):
        return _search_remote(input_path, output_path, limit, query)
    if Path(input_path).is_dir():
        start = storage.start_of(input_path)
        below = _inputs(sorted(storage.list_paths(input_path)), input_path, output_path)
        return [f"{start}{path}" for path in below], input_path, False
    if Path(input_path).exists():
        return [input_path], str(Path(input_path).parent), True
    if not globs.has_magic(input_path):
        raise Unreachable(f"--input_path {input_path} does not exist")
    fixed = globs.fixed_folder(input_path)
    paths = sorted(set(_matches(input_path)))
    matches = (path.removeprefix(fixed) for path in paths)
    found = _inputs(matches, fixed or ".", output_path, hidden_too=True)
    return [f"{fixed}{path}" for path in found], str(Path(fixed)), False


def _search_remote(
    input_path: str, output_path: str | None, limit: int, query: str
) -> tuple[list[str], str | None, bool]:
    """Does `_search` for an address. Its listing is sorted, so that a limit ends it early."""
    folder = input_path.rstrip("/")
    if globs.has_magic(input_path):
        fixed = globs.fixed_folder(input_path)
        matches = (path.removeprefix(fixed) for path in _matches(input_path))
        below = _inputs(matches, fixed.rstrip("/"), output_path, hidden_too=True)
        return _first((f"{fixed}{path}" for path in below), limit), None, False
    listing = storage.list_paths(dicomweb_address.with_query(folder, query))
    below = _inputs(listing, folder, output_path)
    if found := _first((f"{folder}/{path}" for path in below), limit):
        return found, folder, False
    if not input_path.endswith("/") and storage.exists(input_path):
        return [input_path], input_path.rpartition("/")[0], True
    return [], folder, False


def _matches(pattern: str) -> Iterator[str]:
    """Yields the files that a glob selects; hidden files only if the glob itself matches them.

    The files of earlier outputs are included; `_inputs` removes them.
    """
    return (path for path, below in storage.matches(pattern) if not _is_hidden(below))


def _inputs(
    paths: Iterable[str], folder: str, output_path: str | None, *, hidden_too: bool = False
) -> Iterator[str]:
    """Yields the paths that may be images, without the files of this and earlier outputs.

    Args:
        paths: sorted paths below `folder`.
        folder: the searched folder.
        output_path: the run's output, excluded if it is below `folder`.
        hidden_too: whether hidden files are included, since a glob may match them.
    """
    inside = _relative_inside(output_path, folder)
    own = _OwnFiles(has_output_here=inside == "")
    for path in paths:
        if inside and path.startswith(inside):
            continue
        if not own.is_own(path) and _may_be_image(path) and (hidden_too or not _is_hidden(path)):
            yield path


class _OwnFiles:
    """Recognises the files that earlier runs of this program wrote into a folder of images.

    A folder `_runs` belongs to an output only if `_embedding_config.json` is beside it. Images in
    other folders of this name are inputs.

    Args:
        has_output_here: whether the searched folder is the run's output.
    """

    def __init__(self, has_output_here: bool) -> None:
        self._outputs = {""} if has_output_here else set()

    def is_own(self, path: str) -> bool:
        """Whether a run wrote this file.

        Paths must be passed in sorted order, so that a config precedes the `_runs` beside it.
        """
        folder, _, name = path.rpartition("/")
        if name == CONFIG_NAME:
            self._outputs.add(f"{folder}/" if folder else "")
            return True
        start = path.find(_RUNS)
        while start >= 0:
            if (start == 0 or path[start - 1] == "/") and path[:start] in self._outputs:
                return True
            start = path.find(_RUNS, start + 1)
        return False


def _relative_inside(output_path: str | None, folder: str) -> str | None:
    """Returns `sub/folder/` if the output is below the input, "" if it is the input, else None."""
    if not output_path or storage.is_remote(output_path) != storage.is_remote(folder):
        return None
    if storage.is_remote(folder):
        output, searched = f"{output_path.rstrip('/')}/", f"{folder.rstrip('/')}/"
        return output.removeprefix(searched) if output.startswith(searched) else None
    relative = os.path.relpath(Path(output_path).resolve(), Path(folder).resolve())
    if relative == ".":
        return ""
    is_outside = relative == ".." or relative.startswith("../")
    return None if is_outside else f"{relative}/"


def _may_be_image(path: str) -> bool:
    """Whether a file is neither a DICOMDIR nor a record."""
    name = path.rpartition("/")[2]
    return name != _DICOM_DIRECTORY and not name.endswith(RECORD_SUFFIX)


def _may_be_member(name: str) -> bool:
    """Whether a member of an archive may be an image, by its name; `..` is not a hidden folder."""
    hidden = any(part.startswith(".") and part != ".." for part in name.split("/"))
    return not hidden and _may_be_image(name)


def _is_hidden(path: str) -> bool:
    return path.startswith(".") or "/." in path


def _first(paths: Iterable[str], limit: int) -> list[str]:
    """Returns the paths up to the `limit`-th with an image's name; all if `limit` is 0."""
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
    """Whether any file can be an image, by its name or by its first bytes."""
    others = []
    for path in paths:
        if not file_types.OTHER_NAME.search(path):
            return True
        others.append(path)
    return any(not storage.is_remote(path) and _starts_as_image(path) for path in others)


def _starts_as_image(path: str) -> bool:
    """Whether a file's first bytes are those of an image; a gzip file is decompressed."""
    try:
        start = storage.read_start(path)
    except PlaceUnavailable as error:
        raise Unreachable(f"the input cannot be read: {error}") from error
    except OSError:
        return False
    kind = file_types.sniff(start)
    if kind == "gzip":
        try:
            kind = file_types.sniff(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start, 512))
        except zlib.error:
            return False
    return kind is not None


def _read_list(input_list: str) -> list[str]:
    try:
        data = storage.read_bytes(input_list)
    except OSError as error:
        raise Unreachable(
            f"--input_list {input_list} cannot be read: {error.strerror or error}"
        ) from error
    # Text of Latin letters in UTF-16 has a NUL beside every letter.
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (
        data[:1000].count(0) * 3 > len(data[:1000])
    ):
        raise UsageError(f"--input_list {input_list} is UTF-16: save it as UTF-8")
    paths = []
    for number, raw in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        where = f"--input_list {input_list}, line {number}"
        try:
            line = raw.decode().strip("\r")
        except UnicodeDecodeError as error:
            raise UsageError(f"{where} is not UTF-8") from error
        if line.strip():
            storage.check_address(line, where)
            paths.append(line)
    return paths


def _of_place(error: OSError) -> str:
    """Returns an error's text, preceded by its folder."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _common_folder(paths: list[str]) -> str:
    # `PurePosixPath` keeps one slash of `gs://`, which makes an address comparable with others.
    folders = {str(PurePosixPath(members.as_folder(path)).parent) for path in paths}
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # absolute and relative paths mixed, an error in mirrored layouts only
        return ""
    scheme, slash, rest = common.partition(":/")
    return f"{scheme}://{rest}" if slash and scheme in storage.PLACES else common


def _folder(path: str, root: str, layout: str) -> str:
    """Returns the folder of a record: empty for `flat`, the folders below the root for `mirror`."""
    if layout == "flat":
        return ""
    path, root = members.as_folder(path), members.as_folder(root)
    if storage.is_remote(path):
        below = path.removeprefix(root).lstrip("/")
    else:
        below = os.path.relpath(path, root or ".")
    folder = PurePosixPath(below).parent
    if ".." in folder.parts or folder.is_absolute():
        raise UsageError(f"--output_layout=mirror: {path} is not below {root}")
    return "" if folder == PurePosixPath(".") else str(folder)


def _refuse_collisions(refs: list[ImageRef], layout: str) -> None:
    of_record: dict[str, list[ImageRef]] = {}
    for ref in refs:
        of_record.setdefault(ref.record, []).append(ref)
    clashes = [
        images
        for same in of_record.values()
        if len(same) > 1 and len(images := [ref.path for ref in same if _is_image(ref)]) > 1
    ]
    if not clashes:
        return
    pairs = sum(len(images) - 1 for images in clashes)
    more = f" (and {pairs - 1} more pairs)" if pairs > 1 else ""
    remedy = (
        "pass --output_layout=mirror to keep the input's folders"
        if layout == "flat"
        else "rename one of them"
    )
    raise UsageError(
        f"{clashes[0][0]} and {clashes[0][1]} would write the same record{more}: {remedy}"
    )


def _is_image(ref: ImageRef) -> bool:
    """Whether a file is an image; it is opened only if it does not have an image's name."""
    if ref.is_refused:
        return False
    return not file_types.OTHER_NAME.search(ref.path) or _starts_as_image(ref.path)
