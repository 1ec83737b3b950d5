"""The registry of storage places: which place an address belongs to, and whether it is valid.

To add a place, write a module with a class that inherits from `files.Place` (or, for a service that
stores objects in buckets, from `object_store.ObjectStore`) and add an instance of it to `PLACES`.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from cxr_embed import members
from cxr_embed.errors import PlaceUnavailable, UsageError
from cxr_embed.storage import azure, dicomweb, dicomweb_address, gcs, local, s3
from cxr_embed.storage.archives import Archives
from cxr_embed.storage.files import Place

# The place of each scheme, the part of an address before `://`.
PLACES: dict[str, Place] = {
    "gs": gcs.GoogleCloudStorage(),
    "s3": s3.S3(),
    "az": azure.AzureBlobStorage(),
    **dict.fromkeys(dicomweb_address.SCHEMES, dicomweb.DicomWeb()),
}

# A single letter is a Windows drive. A path that begins with a dot or a slash is local.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/?#]*)(.*)", re.DOTALL)


def check_place(path: str, flag: str) -> None:
    """Checks that a path or an address is valid, before anything is read or written.

    Args:
        path: the path from the user.
        flag: the flag of the path, such as `--input_path`; the message begins with it.

    Raises:
        UsageError: the path contains a NUL, has an unsupported scheme, has an invalid bucket name,
            or contains a user name or password, which the message does not repeat.
    """
    check_address(path, flag)
    if why := place_of(path).check_name(path):
        raise UsageError(f"{flag} {path}: {why}")


def check_address(path: str, flag: str) -> None:
    """Does the checks of `check_place` except that of the bucket's name.

    It is used for the lines of a list, where an invalid bucket name is a failure of one image.

    Args:
        path: the path from the user.
        flag: the flag of the path.

    Raises:
        UsageError: see `check_place`.
    """
    if "\0" in path:
        raise UsageError(f"{flag} contains a NUL, which is not valid in a path")
    address = _ADDRESS.fullmatch(path)
    if address is None:
        return
    scheme, authority, rest = address.groups()
    if _has_secret(scheme, authority, rest):
        raise UsageError(
            f"{flag}: this {scheme}:// address contains a user name or password: remove it; "
            "credentials are taken from the environment"
        )
    if scheme in dicomweb_address.SCHEMES and ("?" in path or "#" in path):
        raise UsageError(
            f"{flag}: this {scheme}:// address contains a query: pass it as --dicomweb_query"
        )
    if scheme not in PLACES:
        secret = any(sign in authority + rest for sign in "@:?#")
        shown = f"{scheme}://…" if secret else path
        kinds = ", ".join(f"{known}://" for known in PLACES)
        raise UsageError(
            f"{flag} {shown}: {scheme}:// is not supported; pass a local path or {kinds}"
        )
    if _missing_extra(scheme):
        raise UsageError(f"{flag} {path}: {_what_to_install(scheme)}")


def _has_secret(scheme: str, authority: str, rest: str) -> bool:
    """Whether an address contains a user name or a password, which may contain a slash."""
    if "@" in authority or scheme not in PLACES:
        return "@" in authority
    if PLACES[scheme].has_ports:
        _, colon, port = authority.partition(":")
        return "@" in rest or (bool(colon) and not port.isdigit())
    return ":" in authority


@functools.cache  # a list of images asks once a line
def _missing_extra(scheme: str) -> str | None:
    return PLACES[scheme].missing_extra()


def _what_to_install(scheme: str) -> str:
    extra = _missing_extra(scheme)
    return f"{scheme}:// needs other packages: pip install 'cxr-embed[{extra}]'"


def is_remote(path: str) -> bool:
    """Whether `path` is an address of one of `PLACES`, not a local path."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme in PLACES


def place_of(path: str) -> Place:
    """Returns the module for a path.

    Raises:
        OSError: the scheme is not supported, or the address contains credentials.
        PlaceUnavailable: the packages that the place needs are not installed.
    """
    if ARCHIVES.holds(path):
        return ARCHIVES
    return _place_of_file(path)


def _place_of_file(path: str) -> Place:
    scheme = path.partition("://")[0]
    if is_remote(path) and _missing_extra(scheme):  # a worker without the packages
        raise PlaceUnavailable(f"{path}: {_what_to_install(scheme)}")
    is_listing = scheme in dicomweb_address.SCHEMES  # may have a query, see `list_files` there
    try:
        check_address(path.partition("?")[0] if is_listing else path, "path")
    except UsageError as error:
        raise OSError(str(error)) from None
    return PLACES[scheme] if is_remote(path) else local


# The members of archives in any place.
ARCHIVES = Archives(_place_of_file)


def is_member(path: str) -> bool:
    """Whether `path` is the address of a member of an archive, see `cxr_embed.members`."""
    return ARCHIVES.holds(path)


def is_on_disk(path: str) -> bool:
    """Whether `path` is a local file or folder: neither an address nor a member of an archive."""
    return not is_remote(path) and not is_member(path)


def is_archive(path: str) -> bool:
    """Whether `path` is an existing file with the name of an archive.

    Raises:
        OSError: the service does not answer.
    """
    if not members.is_archive(path):
        return False
    return _place_of_file(path).exists(path) if is_remote(path) else Path(path).is_file()


def holds_only_images(path: str) -> bool:
    """Whether the place of `path` can hold no other files than images."""
    return place_of(path).only_images


def join(folder: str, *parts: str) -> str:
    """Joins path parts with the separator that `folder` uses."""
    if is_remote(folder):
        return "/".join([folder.rstrip("/"), *parts])
    return str(Path(folder, *parts))


def start_of(folder: str) -> str:
    """Returns the prefix that `join` adds to a path, to join many paths by string addition."""
    return join(folder, "_")[:-1]
