"""gs:// buckets: the requests of Google Cloud Storage, see `object_store.ObjectStore`."""

from __future__ import annotations

import base64
import re
from typing import IO, Any

from cxr_embed.storage import gcs_client
from cxr_embed.storage.arriving import Arriving
from cxr_embed.storage.clients import TIMEOUT_SECONDS
from cxr_embed.storage.files import Entry
from cxr_embed.storage.gcs_client import client, last_headers
from cxr_embed.storage.object_store import Head, Object, ObjectStore
from cxr_embed.storage.retries import Corrupt, retry
from cxr_embed.storage.settings import settings

# https://cloud.google.com/storage/docs/buckets#naming without the rules that only the service can
# check: a bucket whose name breaks one of those does not exist.
_BUCKET_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,220}[a-z0-9])?")

_ONCE: dict[str, Any] = {"retry": None, "timeout": TIMEOUT_SECONDS}


class GoogleCloudStorage(ObjectStore):
    """Google Cloud Storage, with its own client."""

    scheme = "gs"

    def check_name(self, path: str) -> str | None:
        """Returns why a path cannot name a bucket, or None."""
        bucket = path.removeprefix("gs://").partition("/")[0]
        if not bucket:
            return "names no bucket"
        if not _BUCKET_NAME.fullmatch(bucket):
            return (
                "no bucket can have this name: it has only lower-case letters, digits, dashes, "
                "underscores and dots, and starts and ends with a letter or digit"
            )
        return None

    def list_page(self, bucket: str, prefix: str, token: str) -> tuple[list[Entry], str]:
        """Lists 1,000 objects."""
        listing = client().list_blobs(
            _bucket(bucket),
            prefix=prefix,
            fields="items(name,size,crc32c),nextPageToken",
            page_token=token or None,
            **_ONCE,
        )
        page = [
            Entry(blob.name, blob.size or 0, blob.crc32c or "") for blob in next(listing.pages, ())
        ]
        return page, listing.next_page_token or ""

    def head(self, at: Object) -> Head | None:
        """Returns the object's size and CRC-32C."""
        blob = _bucket(at.bucket).get_blob(at.name, **_ONCE)
        return blob and Head(blob.size or 0, blob.crc32c or "", crc32c=blob.crc32c or "")

    def get(self, at: Object, into: Arriving) -> None:
        """Downloads an object; the client verifies its checksum."""
        from google.cloud.storage.exceptions import DataCorruption

        into.announced_size = _announced_size
        where: dict[str, Any] = {"checksum": "crc32c"}
        if not into.is_whole:
            end = None if into.length is None else into.first + into.length - 1
            where = {"checksum": None, "start": into.first, "end": end}
        try:
            # The client's own retry resumes a broken download and then skips the checksum.
            _blob(at).download_to_file(into, **where, **_ONCE)
        except DataCorruption as error:
            raise Corrupt("the content does not match its checksum") from error
        if into.is_whole:
            into.crc32c = _announced_crc32c()

    def put(self, at: Object, file: IO[bytes], size: int, *, new: bool) -> bool:
        """Uploads an object: small ones in one request, large ones in pieces that are resumed."""
        from google.api_core.exceptions import PreconditionFailed

        how: dict[str, Any] = {"if_generation_match": 0} if new else {}
        file.seek(0)
        try:
            _blob(at).upload_from_file(
                file, size=size, checksum="crc32c", timeout=TIMEOUT_SECONDS,
                retry=retry(self.is_passing), **how,
            )  # fmt: skip
        except PreconditionFailed:
            return False
        return True

    def delete(self, at: Object) -> None:
        """Removes an object."""
        _blob(at).delete(**_ONCE)

    def is_passing(self, error: BaseException) -> bool:
        """Whether an exception may not be raised by the next request."""
        return gcs_client.is_passing(error)

    def as_oserror(self, path: str, error: Exception) -> OSError | None:
        """Returns the error of a local file that an exception corresponds to."""
        return gcs_client.as_oserror(path, error)

    def why(self, error: BaseException | None) -> str:
        """Returns an exception's text in one line."""
        return gcs_client.why(error)


def _announced_size() -> int | None:
    """Returns the size of this thread's current download, if the response's headers have it."""
    headers = last_headers()
    size = headers.get("X-Goog-Stored-Content-Length") or headers.get("Content-Length") or ""
    return int(size) if size.isdigit() and not headers.get("Content-Encoding") else None


def _announced_crc32c() -> str | None:
    """Returns the checksum of this thread's last download, if the response's headers have it."""
    headers = last_headers()
    if headers.get("Content-Encoding"):  # the checksum is that of the compressed bytes
        return None
    found = re.search(r"\bcrc32c=([A-Za-z0-9+/=]+)", headers.get("X-Goog-Hash") or "")
    return base64.b64decode(found[1]).hex() if found else None


def _bucket(name: str) -> Any:
    return client().bucket(name, user_project=settings().billing_project)


def _blob(at: Object) -> Any:
    return _bucket(at.bucket).blob(at.name)
