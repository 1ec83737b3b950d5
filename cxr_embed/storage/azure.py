"""az:// containers: the requests of Azure Blob Storage, see `object_store.ObjectStore`.

azure-storage-blob is used rather than adlfs: adlfs writes through an event loop in a thread of its
own, which does not survive a fork, and holds a whole listing in memory.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
from typing import IO, Any

from cxr_embed.storage import azure_client
from cxr_embed.storage.arriving import Arriving, md5_of
from cxr_embed.storage.azure_client import ONE_REQUEST, client
from cxr_embed.storage.files import Entry
from cxr_embed.storage.object_store import Head, Object, ObjectStore
from cxr_embed.storage.retries import Corrupt

# https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
_CONTAINER_NAME = re.compile(r"\$root|\$web|[a-z0-9](?:-?[a-z0-9]){2,62}")

_PAGE = 1000

# A large upload is not begun again because of one block.
_BLOCK_RETRIES = 6


class AzureBlobStorage(ObjectStore):
    """Azure Blob Storage, with its own client. A bucket is a container of one account."""

    scheme = "az"

    def missing_extra(self) -> str | None:
        """Returns the extra that installs the client, if it is missing."""
        try:
            is_here = importlib.util.find_spec("azure.storage.blob")
        except ModuleNotFoundError:
            is_here = None
        return None if is_here else "azure"

    def check_name(self, path: str) -> str | None:
        """Returns why a path cannot name a container, or None."""
        container = path.removeprefix("az://").partition("/")[0]
        if not container:
            return "names no container"
        if not _CONTAINER_NAME.fullmatch(container):
            return (
                "no container can have this name: it has 3 to 63 lower-case letters, digits and "
                "single dashes; the account is taken from AZURE_STORAGE_ACCOUNT"
            )
        return None

    def list_page(self, bucket: str, prefix: str, token: str) -> tuple[list[Entry], str]:
        """Lists 1,000 blobs."""
        # Only the metadata shows which blobs are the folders of a hierarchical namespace.
        listing = (
            client()
            .get_container_client(bucket)
            .list_blobs(name_starts_with=prefix, include=["metadata"], results_per_page=_PAGE)
        )
        pages = listing.by_page(token or None)
        entries = []
        for found in next(pages, ()):
            metadata = {name.lower(): value for name, value in (found.metadata or {}).items()}
            if metadata.get("hdi_isfolder") != "true":
                md5 = found.content_settings.content_md5
                tag = base64.b64encode(md5).decode() if md5 else str(found.etag)
                entries.append(Entry(found.name, found.size, tag))
        return entries, pages.continuation_token or ""

    def head(self, at: Object) -> Head | None:
        """Returns the blob's size and MD5."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            found = _blob(at).get_blob_properties()
        except ResourceNotFoundError:
            return None
        md5 = found.content_settings.content_md5
        text = base64.b64encode(md5).decode() if md5 else ""
        return Head(found.size, text or str(found.etag).strip('"'), md5=text)

    def get(self, at: Object, into: Arriving) -> None:
        """Downloads a blob and verifies its MD5, if the service has it."""
        # `download_blob` reads 32 MB before it returns; the request itself is made here.
        headers, pieces = _blob(at)._client.blob.download(
            range=into.range_header,
            decompress=False,
            cls=lambda response, stream, deserialized: (response.http_response.headers, stream),
        )
        length = headers.get("Content-Length")
        size = int(length) if length else None
        into.announced_size = lambda: size
        expected = headers.get("Content-MD5") if into.is_whole else None
        found, received = hashlib.md5(usedforsecurity=False), 0
        try:
            for piece in pieces:
                into.write(piece)
                received += len(piece)
                if expected:
                    found.update(piece)
        finally:
            pieces.response.internal_response.close()
        if size is not None and received != size:
            raise Corrupt("the response broke off")
        if expected and base64.b64encode(found.digest()).decode() != expected:
            raise Corrupt("the content does not match its checksum")

    def put(self, at: Object, file: IO[bytes], size: int, *, new: bool) -> bool:
        """Uploads a blob: small ones in one request, large ones in blocks, committed at the end."""
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
        from azure.storage.blob import ContentSettings

        digest = bytearray(base64.b64decode(md5_of(file)))
        file.seek(0)
        settings = ContentSettings("application/octet-stream", content_md5=digest)
        try:
            _blob(at).upload_blob(
                file, length=size, overwrite=not new, content_settings=settings,
                validate_content=True, retry_total=0 if size <= ONE_REQUEST else _BLOCK_RETRIES,
            )  # fmt: skip
        except (ResourceExistsError, ResourceModifiedError):
            if new:
                return False
            raise
        return True

    def delete(self, at: Object) -> None:
        """Removes a blob."""
        _blob(at).delete_blob()

    def is_passing(self, error: BaseException) -> bool:
        """Whether an exception may not be raised by the next request."""
        return azure_client.is_passing(error)

    def as_oserror(self, path: str, error: Exception) -> OSError | None:
        """Returns the error of a local file that an exception corresponds to."""
        return azure_client.as_oserror(path, error)

    def why(self, error: BaseException | None) -> str:
        """Returns an exception's text in one line."""
        return azure_client.why(error)


def _blob(at: Object) -> Any:
    return client().get_blob_client(at.bucket, at.name)
