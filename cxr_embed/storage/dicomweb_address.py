"""Addresses of DICOMweb stores: dicomweb+https://host/root[/studies/UID[/series/UID[...]]]."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

from cxr_embed.errors import UsageError

SCHEMES = ("dicomweb+https", "dicomweb+http")

_ADDRESS = re.compile(r"(dicomweb\+https?)://([^/?#]*)([^?#]*)(?:\?([^#]*))?")

# PS3.5 section 9.1 allows digits and dots; some devices write more. It names a file: no slashes.
UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
_U = UID.pattern
_PATH = re.compile(
    rf"(?P<root>.*?)(?:/studies(?:/(?P<study>{_U})(?:/series(?:/(?P<series>{_U})"
    rf"(?:/instances(?:/(?P<instance>{_U}))?)?)?)?)?)?/*"
)

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?(?::\d{1,5})?")
_LOOPBACK = re.compile(r"localhost|127(?:\.\d{1,3}){3}")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")

# Their values are kept in the manifest.
_OF_NO_PATIENT = {
    "Modality", "ModalitiesInStudy", "StudyDate", "SeriesDate", "BodyPartExamined", "Laterality",
    "00080060", "00080061", "00080020", "00080021", "00180015", "00200060",
}  # fmt: skip
# These are not filters: this program sets them, or they change nothing in the list of instances.
_RESERVED = {"limit": "pass --limit", "offset": "leave it out", "includefield": "leave it out"}


class Address(NamedTuple):
    """The parts of an address.

    Attributes:
        scheme: `dicomweb+https` or `dicomweb+http`.
        host: with the port, if there is one.
        root: the path of the DICOMweb service, without a slash at its end.
        study: Study Instance UID, or None.
        series: Series Instance UID, or None.
        instance: SOP Instance UID, or None.
        filters: keys and values of the query.
    """

    scheme: str
    host: str
    root: str
    study: str | None = None
    series: str | None = None
    instance: str | None = None
    filters: tuple[tuple[str, str], ...] = ()

    @property
    def service(self) -> str:
        """The URL of the DICOMweb service."""
        return f"{self.scheme.removeprefix('dicomweb+')}://{self.host}{self.root}"

    @property
    def url(self) -> str:
        """The URL of the instance."""
        return f"{self.service}/studies/{self.study}/series/{self.series}/instances/{self.instance}"

    @property
    def is_plain_to_others(self) -> bool:
        """Whether others on the network can read what is sent."""
        name = self.host.partition(":")[0].lower()
        return self.scheme == "dicomweb+http" and not _LOOPBACK.fullmatch(name)


def why_invalid(path: str) -> str | None:
    """Returns why a path, without its query, is not an address, or None."""
    found = _ADDRESS.fullmatch(path)
    if found is None or not found[2]:
        return "names no host"
    if any(sign in found[2] + found[3] for sign in "*?[]"):
        return "wildcards are not supported here: pass --dicomweb_query"
    if not _HOST.fullmatch(found[2]):
        return "the host's name is not valid"
    if any(ord(sign) <= ord(" ") for sign in found[3]):
        return "a URL has no spaces"
    levels = _PATH.fullmatch(found[3])
    if levels is None or re.search(r"/studies(/|$)", levels["root"]):
        return "is not of the form dicomweb+https://host/root[/studies/UID[/series/UID]]"
    return None


def parse(path: str) -> Address:
    """Returns the parts of an address, which may have the query of a search.

    Raises:
        OSError: the address is not valid.
    """
    if why := why_invalid(path):
        raise OSError(f"{without_query(path)}: {why}")
    found = _ADDRESS.fullmatch(path)
    levels = _PATH.fullmatch(found[3]) if found else None
    assert found is not None and levels is not None
    return Address(
        found[1], found[2], levels["root"].rstrip("/"), levels["study"], levels["series"],
        levels["instance"], tuple(parse_qsl(found[4] or "", keep_blank_values=True)),
    )  # fmt: skip


def without_query(path: str) -> str:
    """Returns a path without its query, which may contain what identifies a patient."""
    return path.partition("?")[0]


def check_query(query: str, input_path: str | None) -> None:
    """Checks `--dicomweb_query`; a message never contains its values.

    Args:
        query: filters of QIDO-RS, such as `Modality=DX&StudyDate=20200101-`.
        input_path: the searched address.

    Raises:
        UsageError: the input is not a DICOMweb store, or a key is not a DICOM attribute. Many
            stores ignore unknown keys, and would return more than asked for.
    """
    flag = "--dicomweb_query"
    if not input_path or input_path.partition("://")[0] not in SCHEMES:
        raise UsageError(f"{flag} needs an --input_path that starts with dicomweb+https://")
    if parse(input_path).instance:
        raise UsageError(f"{flag}: --input_path is one instance, there is nothing to search")
    for pair in query.split("&"):
        key, equals, _ = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"{flag} is not of the form Modality=DX&StudyDate=20200101-")
        if key in _RESERVED:
            raise UsageError(f"{flag}: {key} is not a filter: {_RESERVED[key]}")
        for part in key.split("."):
            if not _TAG.fullmatch(part) and part != "fuzzymatching":
                _check_keyword(part)


def shown_query(query: str) -> str:
    """Returns a query for a run's manifest: values that may identify a patient are hidden."""
    pairs = (pair.partition("=") for pair in query.split("&"))
    return "&".join(f"{key}={value if key in _OF_NO_PATIENT else '…'}" for key, _, value in pairs)


def _check_keyword(key: str) -> None:
    from cxr_embed.imaging.keywords import why_not_a_keyword

    if why := why_not_a_keyword(key):
        raise UsageError(f"--dicomweb_query: {why}")


def with_query(folder: str, query: str) -> str:
    """Returns the address of a search, for `list_files`."""
    return f"{folder}?{quote(query, safe='=&^*-.,%+')}" if query else folder
