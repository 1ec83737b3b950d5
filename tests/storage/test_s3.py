"""What only S3 has: its errors, credentials, checksums and pages, with the real client."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tracemalloc
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest
from buckets import BadLine, answering, assert_refused, serving
from stores import SECRET, moto, s3_spoken_to

from cxr_embed import storage
from cxr_embed.errors import PlaceUnavailable, UsageError
from cxr_embed.storage import find_images as sources
from cxr_embed.storage import s3_client
from cxr_embed.storage.settings import BILLING_PROJECT_VARIABLE, RETRY_SECONDS_VARIABLE

PATH = "s3://bucket/x"


def error_of(code: str, message: str = "no") -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def page_of(names: list[str], token: str) -> bytes:
    items = "".join(
        f'<Contents><Key>{name}</Key><Size>9</Size><ETag>"{"0" * 32}"</ETag></Contents>'
        for name in names
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    return f"<ListBucketResult>{items}{more if token else ''}</ListBucketResult>".encode()


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (503, "SlowDown", PlaceUnavailable, "gave up after 0.2 s: 503 SlowDown"),
        (429, "TooManyRequests", PlaceUnavailable, "gave up"),
        (500, "InternalError", PlaceUnavailable, "gave up"),
        (400, "RequestTimeout", PlaceUnavailable, "gave up"),
        (403, "InvalidAccessKeyId", PlaceUnavailable, "not valid or have expired: set AWS_PROFILE"),
        (400, "ExpiredToken", PlaceUnavailable, "not valid or have expired"),
        (403, "AccessDenied", PermissionError, "403 AccessDenied: no"),
        (404, "NoSuchBucket", FileNotFoundError, "does not exist"),
        (400, "InvalidRequest", OSError, "400 InvalidRequest: no"),
    ],
)  # fmt: skip
def test_what_each_refusal_is(status: int, code: str, kind: type[OSError], says: str) -> None:
    with serving(answering(status, error_of(code))) as address, s3_spoken_to(address, 0.2):
        assert_refused(PATH, kind, says, SECRET)


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (503, "SlowDown")])
def test_a_listing_that_breaks_off_half_way_is_no_smaller_one(status: int, code: str) -> None:
    pages = 2 * (page_of(["in/a.dcm"], "next"),)
    for path in ("s3://bucket/in", "s3://bucket/in/*.dcm"):
        with (
            serving(answering(status, error_of(code), first=pages)) as address,
            s3_spoken_to(address, 0.2),
            pytest.raises(UsageError, match="--input_path cannot be listed: s3://bucket/in"),
        ):
            sources.find_images(path)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-crc32c": "AAAAAA=="}, {"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="},
        {"ETag": f'"{"0" * 32}"'},
    ],
)  # fmt: skip
def test_a_wrong_checksum_is_an_error_of_this_object(headers: dict[str, str]) -> None:
    with serving(answering(200, b"data", headers)) as address, s3_spoken_to(address, 0.2):
        with pytest.raises(OSError, match=f"{PATH}: gave up .*hecksum") as raised:
            storage.read_file(PATH)
        assert not isinstance(raised.value, PlaceUnavailable)


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": f'"{"0" * 32}-3"'},  # uploaded in parts
        {"ETag": f'"{"0" * 32}"', "x-amz-server-side-encryption": "aws:kms"},
        {"ETag": f'"{hashlib.md5(b"data").hexdigest()}"'},
        {},
    ],
)
def test_an_entity_tag_is_not_always_a_checksum(headers: dict[str, str]) -> None:
    with serving(answering(200, b"data", headers)) as address, s3_spoken_to(address, 0.2):
        assert storage.read_bytes(PATH) == b"data"


def test_without_credentials_a_private_bucket_says_how_to_sign_in() -> None:
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    with (
        serving(answering(403, error_of("AccessDenied"))) as address,
        s3_spoken_to(address, 0.2, **nobody),
        pytest.raises(PlaceUnavailable, match=r"no AWS credentials here.*set AWS_PROFILE"),
    ):
        storage.read_file(PATH)
    with serving(answering(200, b"data")) as address, s3_spoken_to(address, 0.2, **nobody):
        assert storage.read_bytes(PATH) == b"data"


def test_a_profile_that_is_not_there_is_named() -> None:
    with (
        s3_spoken_to("http://127.0.0.1:9", 0.2, AWS_PROFILE="ward"),
        pytest.raises(PlaceUnavailable, match=r"s3://bucket/x: .*\(ward\).*AWS_PROFILE"),
    ):
        storage.read_file(PATH)
    with (
        s3_spoken_to("127.0.0.1", 0.2),
        pytest.raises(PlaceUnavailable, match="AWS_ENDPOINT_URL is no address"),
    ):
        storage.read_file(PATH)


def test_credentials_in_the_endpoints_address_are_not_shown() -> None:
    with (
        s3_spoken_to(f"http://user:{SECRET}@127.0.0.1:9", 0.2),
        pytest.raises(PlaceUnavailable) as raised,
    ):
        storage.read_file(PATH)
    assert SECRET not in str(raised.value)


def test_the_launchers_endpoint_goes_to_workers_and_its_keys_do_not() -> None:
    with s3_spoken_to("http://minio:9000", AWS_REGION="eu-west-1"):
        settings = storage.settings()
        assert dict(settings.where)["AWS_ENDPOINT_URL"] == "http://minio:9000"
        assert SECRET not in repr(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://mine:9000")
        for name in ("AWS_REGION", RETRY_SECONDS_VARIABLE, BILLING_PROJECT_VARIABLE):
            patch.setenv(name, "")
        storage.configure(settings)
        later = dict(storage.settings().where)
    assert later["AWS_ENDPOINT_URL"] == "http://mine:9000"  # the worker's own is kept
    assert later["AWS_REGION"] == "eu-west-1"


def test_without_the_extra_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['botocore'] = None\nfrom cxr_embed.cli import main\nmain.run()"
    )
    for command in (["run", "--input_path=s3://b/in", "--output_path=out"],):
        done = subprocess.run(
            [sys.executable, "-c", program, *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert re.search(r"--input_path s3://b/in: .*pip install 'cxr-embed\[s3\]'", done.stderr)
        assert "Traceback" not in done.stderr


class HugeBucket(BaseHTTPRequestHandler):
    """Answers listings of many objects, in pages of a thousand."""

    count = 20_000  # 100,000 take half a minute and no more memory
    requests = 0

    def do_GET(self) -> None:
        HugeBucket.requests += 1
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        start = int(query.get("continuation-token", ["0"])[0])
        end = min(start + 1000, self.count)
        names = [f"files/p{n // 10000:02d}/p{n:08d}/{n:064x}.dcm" for n in range(start, end)]
        content = page_of(names, str(end) if end < self.count else "")
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def test_many_objects_are_listed_page_by_page() -> None:
    with serving(HugeBucket) as address, s3_spoken_to(address):
        assert len(sources.find_images("s3://bucket/files", limit=1500)) == 1500
        assert HugeBucket.requests == 2
        HugeBucket.requests = 0
        tracemalloc.start(1)
        try:
            count = sum(1 for _ in storage.list_files("s3://bucket"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert count == HugeBucket.count
    assert HugeBucket.requests == 20
    assert peak < 6 << 20, peak


def test_a_store_without_preconditions_is_written_without_them() -> None:
    seen: list[str | None] = []

    class Old(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers.get("If-None-Match"))
            content = error_of("NotImplemented") if seen[-1] else b""
            self.send_response(501 if seen[-1] else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Old) as address, s3_spoken_to(address, 0.2):
        storage.write_whole(PATH, b"x")
    assert seen == ["*", None]


@pytest.mark.parametrize(
    ("calculation", "header"),
    [("when_supported", "x-amz-checksum-crc32c"), ("when_required", "content-md5")],
)
def test_an_upload_has_a_checksum_that_the_store_takes(calculation: str, header: str) -> None:
    seen: list[Callable[[str], str | None]] = []

    class Keeping(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers.get)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with (
        serving(Keeping) as address,
        s3_spoken_to(address, 0.2, AWS_REQUEST_CHECKSUM_CALCULATION=calculation),
    ):
        storage.write_whole(PATH, b"x")
    assert seen[0](header)


def test_a_large_upload_leaves_no_parts_behind_when_it_loses_a_race() -> None:
    with moto() as store, s3_spoken_to(store.address):
        storage.write_whole(PATH, b"first")
        line = BadLine(store.address, share=0.3, faults=("hung_up", "unavailable", "slow"))
        with (
            line.open() as address,
            s3_spoken_to(address),
            pytest.raises(storage.OtherContent),
            storage.open_whole(PATH) as file,
        ):
            file.write(bytes(33 << 20))
        assert storage.read_bytes(PATH) == b"first"
        assert not s3_client.client().list_multipart_uploads(Bucket="bucket").get("Uploads")
