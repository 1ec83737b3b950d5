"""s3:// buckets: the requests of Amazon S3 and compatible stores, see `object_store.ObjectStore`.

botocore is used rather than s3fs: s3fs writes through an event loop in a thread of its own, which
does not survive a fork, holds a whole listing in memory, and does not verify checksums.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
from contextlib import closing
from typing import IO, Any

import google_crc32c

from cxr_embed.storage import s3_client
from cxr_embed.storage.arriving import Arriving
from cxr_embed.storage.files import Entry
from cxr_embed.storage.object_store import Head, Object, ObjectStore
from cxr_embed.storage.retries import Corrupt, retried
from cxr_embed.storage.s3_client import client, code_of

# As botocore checks it; compatible stores and old buckets have other rules than new buckets of AWS.
_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")

_BLOCK = 256 << 10

# An object up to this size is one request; a larger one is uploaded in parts of it.
_PART = 32 << 20
_MOST_PARTS = 10_000


class S3(ObjectStore):
    """Amazon S3, and what speaks its protocol, with botocore's client."""

    scheme = "s3"

    def missing_extra(self) -> str | None:
        """Returns the extra that installs botocore, if it is missing."""
        return None if importlib.util.find_spec("botocore") else "s3"

    def check_name(self, path: str) -> str | None:
        """Returns why a path cannot name a bucket, or None."""
        bucket = path.removeprefix("s3://").partition("/")[0]
        if not bucket:
            return "names no bucket"
        if not _BUCKET_NAME.fullmatch(bucket):
            return (
                "no bucket can have this name: it has only letters, digits, dashes, underscores "
                "and dots, and starts with a letter or digit"
            )
        return None

    def list_page(self, bucket: str, prefix: str, token: str) -> tuple[list[Entry], str]:
        """Lists 1,000 objects."""
        more = {"ContinuationToken": token} if token else {}
        page = client().list_objects_v2(Bucket=bucket, Prefix=prefix, **more)
        entries = [
            Entry(found["Key"], found["Size"], found.get("ETag", "").strip('"'))
            for found in page.get("Contents", ())
        ]
        return entries, page.get("NextContinuationToken", "") if page.get("IsTruncated") else ""

    def head(self, at: Object) -> Head | None:
        """Returns the object's size and the checksums that the service has of all of it."""
        try:
            found = client().head_object(Bucket=at.bucket, Key=at.name, ChecksumMode="ENABLED")
        except Exception as error:
            if code_of(error) in ("404", "NoSuchKey", "NotFound"):
                return None
            raise
        tag = found.get("ETag", "").strip('"')
        # The checksum of an object that was uploaded in parts may be that of the parts' checksums.
        is_of_parts = "-" in tag and found.get("ChecksumType") != "FULL_OBJECT"
        crc32c = "" if is_of_parts else found.get("ChecksumCRC32C", "")
        return Head(found["ContentLength"], tag, crc32c=crc32c, md5=_md5_of(found))

    def get(self, at: Object, into: Arriving) -> None:
        """Downloads an object; botocore verifies its checksum, or here its MD5."""
        from botocore.exceptions import FlexibleChecksumError

        part = {} if into.is_whole else {"Range": into.range_header}
        answer = client().get_object(Bucket=at.bucket, Key=at.name, **part)
        if part and not answer.get("ContentRange"):
            raise OSError(f"{at.path}: the store cannot read a part of an object")
        size = answer.get("ContentLength")
        into.announced_size = lambda: size
        has_checksum = any(name.startswith("Checksum") for name in answer)
        expected = _md5_of(answer) if into.is_whole and not has_checksum else ""
        found = hashlib.md5(usedforsecurity=False)
        try:
            with closing(answer["Body"]) as body:
                while piece := body.read(_BLOCK):
                    into.write(piece)
                    if expected:
                        found.update(piece)
        except FlexibleChecksumError as error:
            raise Corrupt("the content does not match its checksum") from error
        if expected and base64.b64encode(found.digest()).decode() != expected:
            raise Corrupt("the content does not match its checksum")

    def put(self, at: Object, file: IO[bytes], size: int, *, new: bool) -> bool:
        """Uploads an object in one request, or a large one in parts, which appears at the end."""
        how = {"IfNoneMatch": "*"} if new else {}
        file.seek(0)
        try:
            if size <= _PART:
                data = file.read()
                self._put(at, data, how)
            else:
                self._put_parts(at, file, size, how)
        except Exception as error:
            if code_of(error) in ("PreconditionFailed", "412"):
                return False
            raise
        return True

    def _put(self, at: Object, data: bytes, how: dict[str, Any]) -> None:
        def put(how: dict[str, Any]) -> None:
            client().put_object(
                Bucket=at.bucket, Key=at.name, Body=data,
                ContentType="application/octet-stream", **_checksum(data), **how,
            )  # fmt: skip

        try:
            put(how)
        except Exception as error:
            if not how or code_of(error) != "NotImplemented":
                raise
            put({})  # a store without preconditions

    def _put_parts(self, at: Object, file: IO[bytes], size: int, how: dict[str, Any]) -> None:
        """Uploads parts, each retried for itself. Nothing is to be seen before the last request."""
        where = {"Bucket": at.bucket, "Key": at.name}
        begun = {**where, "ContentType": "application/octet-stream"}
        if _sends_crc32c():
            begun["ChecksumAlgorithm"] = "CRC32C"
        upload = {**where, "UploadId": client().create_multipart_upload(**begun)["UploadId"]}
        length = max(_PART, -(-size // _MOST_PARTS))
        parts = []
        try:
            for number in range(1, -(-size // length) + 1):
                data = file.read(length)
                sent = _checksum(data)

                def send(
                    number: int = number, data: bytes = data, sent: dict[str, str] = sent
                ) -> str:
                    part = {"PartNumber": number, "Body": data, **sent}
                    return str(client().upload_part(**upload, **part)["ETag"])

                sums = {name: sent[name] for name in sent if name != "ContentMD5"}
                parts.append({"PartNumber": number, "ETag": retried(send, self.is_passing), **sums})
            client().complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **how)
        except BaseException:
            s3_client.try_to(lambda: client().abort_multipart_upload(**upload))
            raise

    def delete(self, at: Object) -> None:
        """Removes an object."""
        client().delete_object(Bucket=at.bucket, Key=at.name)

    def is_passing(self, error: BaseException) -> bool:
        """Whether an exception may not be raised by the next request."""
        return s3_client.is_passing(error)

    def as_oserror(self, path: str, error: Exception) -> OSError | None:
        """Returns the error of a local file that an exception corresponds to."""
        return s3_client.as_oserror(path, error)

    def why(self, error: BaseException | None) -> str:
        """Returns an exception's text in one line."""
        return s3_client.why(error)


def _sends_crc32c() -> bool:
    """Whether the store takes CRC-32C; users of old stores set what botocore names."""
    return bool(client().meta.config.request_checksum_calculation != "when_required")


def _checksum(data: bytes) -> dict[str, str]:
    """Returns the checksum of an upload, which the store verifies."""
    if _sends_crc32c():
        digest = google_crc32c.Checksum(data).digest()
        return {"ChecksumCRC32C": base64.b64encode(digest).decode()}
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return {"ContentMD5": base64.b64encode(digest).decode()}


def _md5_of(answer: dict[str, Any]) -> str:
    """Returns the MD5 of an object in base64; empty if its entity tag is something else.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html: it is not the MD5 of an object
    that was uploaded in parts, or encrypted with keys of a customer or of KMS.
    """
    tag = re.fullmatch(r'"([0-9a-f]{32})"', answer.get("ETag", ""))
    is_other = answer.get("SSECustomerAlgorithm") or answer.get("ServerSideEncryption", "AES256")
    if tag is None or is_other != "AES256":
        return ""
    return base64.b64encode(bytes.fromhex(tag[1])).decode()
