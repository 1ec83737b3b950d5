"""What only Azure has: its errors, settings, checksums and pages, with the real client.

They need no azurite: each server here gives the answers that a test is about.
"""

from __future__ import annotations

import base64
import hashlib
import tracemalloc
import urllib.parse

import pytest
from buckets import QuietHandler, answering, assert_refused, serving
from stores import ACCOUNT_KEY, azure_spoken_to

from cxr_embed import storage
from cxr_embed.cli import main as cli_main
from cxr_embed.errors import PlaceUnavailable
from cxr_embed.storage import azure_client

pytest.importorskip("azure.storage.blob", reason="the extra `azure` is not installed")

PATH = "az://bucket/x"
SIGNATURE = "c2lnbmF0dXJlLWEtc2VjcmV0"


def refusing(status: int, code: str) -> type[QuietHandler]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    return answering(status, body.encode(), {"x-ms-error-code": code})


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (503, "ServerBusy", PlaceUnavailable, "gave up after 0.2 s: 503 ServerBusy"),
        (429, "TooManyRequests", PlaceUnavailable, "gave up"),
        (500, "InternalError", PlaceUnavailable, "gave up"),
        (401, "NoAuthenticationInformation", PlaceUnavailable, "no valid credentials: set AZURE"),
        (403, "AuthenticationFailed", PlaceUnavailable, "no valid credentials: set AZURE"),
        (403, "AuthorizationPermissionMismatch", PermissionError, "403 AuthorizationPermission"),
        (404, "ContainerNotFound", FileNotFoundError, "does not exist"),
        (400, "InvalidInput", OSError, "400 InvalidInput"),
    ],
)  # fmt: skip
def test_what_each_refusal_is(status: int, code: str, kind: type[OSError], says: str) -> None:
    with serving(refusing(status, code)) as address, azure_spoken_to(address, 0.2):
        assert_refused(PATH, kind, says, ACCOUNT_KEY)


def test_a_wrong_checksum_is_an_error_of_this_object() -> None:
    wrong = base64.b64encode(bytes(16)).decode()
    handler = answering(200, b"data", {"Content-MD5": wrong})
    with serving(handler) as address, azure_spoken_to(address, 0.2):
        with pytest.raises(OSError, match=f"{PATH}: gave up .*checksum") as raised:
            storage.read_file(PATH)
        assert not isinstance(raised.value, PlaceUnavailable)


@pytest.mark.parametrize("kept", [base64.b64encode(hashlib.md5(b"data").digest()).decode(), ""])
def test_a_right_checksum_and_none_are_read(kept: str) -> None:
    handler = answering(200, b"data", {"Content-MD5": kept} if kept else {})
    with serving(handler) as address, azure_spoken_to(address, 0.2):
        assert storage.read_bytes(PATH) == b"data"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "no Azure storage account is set: set AZURE_STORAGE_CONNECTION_STRING"),
        ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountKey={SIGNATURE}"}, "settings are not valid"),
        ({"AZURE_STORAGE_CONNECTION_STRING": SIGNATURE}, "settings are not valid"),
        ({"AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_KEY": f"{SIGNATURE}!"}, ""),
        (
            {
                "AZURE_STORAGE_SERVICE_ENDPOINT": "http://127.0.0.1:9/account",
                "AZURE_STORAGE_SAS_TOKEN": f"?sv=2024-01-01&sig={SIGNATURE}",
            },
            "gave up",
        ),
    ],
)
def test_wrong_settings_are_one_line_without_credentials(
    settings: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with azure_spoken_to("http://127.0.0.1:9", 0.2), pytest.MonkeyPatch.context() as patch:
        for name in azure_client._CONFIGURED_BY:
            patch.delenv(name, raising=False)
        for name, value in settings.items():
            patch.setenv(name, value)
        with pytest.raises(PlaceUnavailable, match=f"{PATH}: .*{says}") as raised:
            storage.read_file(PATH)
        assert cli_main.main(["verify", "--input_path=az://bucket/out"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    for text in (str(raised.value), shown.err, shown.out):
        assert SIGNATURE not in text


COUNT = 4_000


def test_many_objects_are_listed_page_by_page() -> None:
    asked: list[str] = []

    class Huge(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            asked.append(self.path)
            start = int(query.get("marker", ["0"])[0])
            end = min(start + int(query["maxresults"][0]), COUNT)
            blobs = "".join(
                f"<Blob><Name>p{number:08d}/{number:064x}.dcm</Name><Properties>"
                f"<Content-Length>9</Content-Length><BlobType>BlockBlob</BlobType><Etag>0x{number}</Etag></Properties></Blob>"
                for number in range(start, end)
            )
            marker = f"<NextMarker>{end}</NextMarker>" if end < COUNT else "<NextMarker/>"
            content = (
                "<?xml version='1.0' encoding='utf-8'?><EnumerationResults ServiceEndpoint='x' "
                f"ContainerName='bucket'><Blobs>{blobs}</Blobs>{marker}</EnumerationResults>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with serving(Huge) as address, azure_spoken_to(address, 5):
        next(storage.list_files("az://bucket"))
        assert len(asked) == 1
        tracemalloc.start(1)
        try:
            count = sum(1 for _ in storage.list_files("az://bucket"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert count == COUNT
    assert len(asked) == 1 + COUNT // 1000
    assert peak < 30 << 20, peak  # as with 60,000; all of these objects need more
