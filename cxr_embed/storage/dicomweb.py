"""dicomweb+https:// addresses: instances of a DICOMweb store, fetched whole with WADO-RS."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from email.message import Message
from typing import Any

from cxr_embed.storage import dicomweb_address, dicomweb_client, dicomweb_listing
from cxr_embed.storage.arriving import Arriving, Refused
from cxr_embed.storage.dicomweb_address import Address, without_query
from cxr_embed.storage.dicomweb_client import Answered
from cxr_embed.storage.dicomweb_credentials import why_not_sent
from cxr_embed.storage.files import Admit, Entry, Place, StoredFile
from cxr_embed.storage.multipart import NotOnePart, read_part

# `*` asks for the instance as it is stored. Without it, the default is Explicit VR Little Endian
# (PS3.18 section 8.7.3.3.2), and stores decompress. Compressing again gains little on pixels.
_HEADERS = {
    "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',
    "Accept-Encoding": "identity",
}

_SINGLE = ("application/dicom", "application/octet-stream")


class DicomWeb(Place):
    """A DICOMweb store. It is read only; its files are instances, named by their UIDs."""

    has_ports = True
    only_images = True

    def missing_extra(self) -> str | None:
        """Returns the extra if requests is not installed, which Google's clients bring."""
        return None if importlib.util.find_spec("requests") else "dicomweb"

    def check_name(self, path: str) -> str | None:
        """Returns why a path is not a valid address, or None."""
        why = dicomweb_address.why_invalid(path)
        return why or why_not_sent(dicomweb_address.parse(path))

    def list_files(self, folder: str) -> Iterator[Entry]:
        """Yields the instances of a store, a study or a series, sorted by UIDs, each once.

        Their paths, some 200 bytes each, are in memory, since the order of a store's answers is
        not defined. Sizes are not known.

        Args:
            folder: the address, with the query of `dicomweb_address.with_query`.
        """
        address = dicomweb_address.parse(folder)
        if address.instance is not None:
            return
        shown = without_query(folder).rstrip("/")
        service = f"{address.scheme}://{address.host}{address.root}"
        found = {
            f"{service}/studies/{study}/series/{series}/instances/{instance}"
            for study, series, instance in dicomweb_listing.instances(address, shown)
        }
        for path in sorted(found):
            yield Entry(path.removeprefix(shown).lstrip("/"), 0)

    def exists(self, path: str) -> bool:
        """Whether the store sends an instance; its content is not read."""
        address = dicomweb_address.parse(path)
        if address.instance is None:
            return False

        def attempt() -> None:
            with dicomweb_client.answer(address, address.url, _HEADERS, words=False):
                pass

        try:
            dicomweb_client.call(path, attempt)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        """Returns an instance's size in bytes. The service cannot be asked for it: it is read."""
        return len(self.read_file(path, None).data)

    def state(self, path: str) -> str:
        """Returns the same text for all instances: another content has another UID."""
        del path
        return "instance"

    def read_file(self, path: str, admit: Admit | None = None) -> StoredFile:
        """Reads an instance in one request, in the transfer syntax in which it is stored."""
        address = dicomweb_address.parse(path)
        if address.instance is None:
            raise OSError(f"{without_query(path)} is not the address of one instance")

        def attempt() -> StoredFile:
            arriving = Arriving(path, admit)
            _get(address, arriving)
            return arriving.finish()

        try:
            return dicomweb_client.call(path, attempt)
        except Refused as refused:  # an exception of `admit` is not an error of the store
            raise refused.why from None
        except NotOnePart as error:
            raise OSError(f"{path}: {error}") from error
        except OSError as error:
            if getattr(error.__cause__, "status", None) in (400, 406, 415):
                raise OSError(f"{error}: the store does not send what it has untranscoded") from (
                    error
                )
            raise

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Reads a part of an instance. The service has no such request: all of it is read."""
        return self.read_file(path, None).data[start : start + length]


def _get(address: Address, into: Arriving) -> None:
    """Makes one request for an instance.

    Raises:
        Answered: with another status than 200.
        Corrupt: the answer ends too early.
        NotOnePart: the answer is no instance.
    """
    with dicomweb_client.answer(address, address.url, _HEADERS, words=False) as response:
        if response.status_code != 200:  # 206: the store leaves something out
            raise Answered(response.status_code)
        kind, boundary = _content_type(response)
        pieces = dicomweb_client.pieces(response)
        if kind == "multipart/related" and boundary:
            read_part(pieces, boundary, into)
        elif kind in _SINGLE:
            size = response.headers.get("Content-Length", "")
            if size.isdigit() and not response.headers.get("Content-Encoding"):
                into.announced_size = lambda: int(size)
            for piece in pieces:
                into.write(piece)
        else:
            raise NotOnePart(f"the store answers with {kind[:60]}, not with DICOM")


def _content_type(response: Any) -> tuple[str, str]:
    """Returns the media type of an answer, and its boundary, which may be empty."""
    message = Message()
    message["Content-Type"] = response.headers.get("Content-Type", "application/octet-stream")
    return message.get_content_type(), message.get_boundary("")
