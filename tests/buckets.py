"""Stand-ins for Google Cloud Storage on the loopback, and a bad line to them."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cxr_embed import storage
from cxr_embed.storage.find_images import find_images
from cxr_embed.storage.settings import BILLING_PROJECT_VARIABLE, RETRY_SECONDS_VARIABLE

# Its server takes one connection after the other: the others have to be let wait in line.
EMULATOR = """
import http.server, sys
http.server.HTTPServer.request_queue_size = 128
from gcp_storage_emulator.server import create_server
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").run()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[str]:
    """Runs a server on a port of the loopback; yields its address once it answers."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 300
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < deadline
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


@contextlib.contextmanager
def emulator() -> Iterator[str]:
    """gcp-storage-emulator with an empty bucket named `bucket`; yields its address."""
    pytest.importorskip("gcp_storage_emulator")
    port = free_port()
    with running([sys.executable, "-c", EMULATOR, str(port)], port) as address:
        yield address


@contextlib.contextmanager
def spoken_to(address: str, retry_seconds: float = 60) -> Iterator[None]:
    """Lets this process and those that it starts speak to a stand-in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        patch.setenv(RETRY_SECONDS_VARIABLE, str(retry_seconds))
        patch.delenv(BILLING_PROJECT_VARIABLE, raising=False)
        yield


def upload(folder: Path, target: str) -> str:
    """Copies a local folder to a place; returns `target`."""
    for file in folder.rglob("*"):
        if file.is_file():
            storage.write_whole(
                f"{target}/{file.relative_to(folder).as_posix()}", file.read_bytes()
            )
    return target


def assert_refused(path: str, kind: type[OSError], says: str, secret: str) -> None:
    """Reading, writing and listing `path` fail alike, without the secret in the message."""
    for act in (
        storage.read_file, lambda path: storage.write_whole(path, b"x"),
        lambda path: list(storage.list_files(path)),
    ):  # fmt: skip
        with pytest.raises(OSError, match=f"{path}.*{says}") as raised:
            act(path)
        assert type(raised.value) is kind
        assert secret not in str(raised.value)


def contents(folder: str) -> dict[str, bytes]:
    """Returns all objects below a folder."""
    names = [entry.path for entry in storage.list_files(folder)]
    read = storage.in_parallel(lambda name: storage.read_bytes(f"{folder}/{name}"), names)
    return dict(zip(names, read, strict=True))


class QuietHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def handle_expect_100(self) -> bool:
        answered = super().handle_expect_100()
        self.wfile.flush()  # otherwise clients of S3 wait for a second before each upload
        return answered


def answering(
    status: int,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    first: tuple[bytes, ...] = (),
) -> type[QuietHandler]:
    """Gives one answer to everything, after those of status 200 that come `first`."""
    earlier = list(first)

    class Answering(QuietHandler):
        def do_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_early = bool(earlier)
            content = earlier.pop(0) if is_early else body
            self.send_response(200 if is_early else status)
            for name, value in ({} if is_early else headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_any  # noqa: N815

    return Answering


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        pass  # whoever asked has gone


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serves HTTP in threads of this process; yields the address."""
    with _QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


# What the line does to a request. The first three reach the service and lose its answer.
FAULTS = (
    "lost_answer", "answer_cut_short", "unavailable_afterwards",
    "hung_up", "unavailable", "too_many", "slow",
)  # fmt: skip


class BadLine:
    """A proxy to `upstream` that treats a share of all requests badly, the same ones each time.

    Args:
        upstream: the address behind it.
        share: of the requests, 0 to 1.
        faults: which of `FAULTS` happen.
    """

    def __init__(self, upstream: str, share: float, faults: tuple[str, ...] = FAULTS) -> None:
        self._upstream = urllib.parse.urlsplit(upstream).netloc
        self.share, self._faults = share, faults
        self._random = random.Random(0)
        self._lock = threading.Lock()
        self.happened: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.paths: list[str] = []

    def decide(self, method: str, path: str) -> str:
        with self._lock:
            self.requests[method] += 1
            self.paths.append(path)
            if self._random.random() >= self.share:
                return ""
            fault = self._random.choice(self._faults)
            self.happened[fault] += 1
            return fault

    @contextlib.contextmanager
    def open(self) -> Iterator[str]:
        """Yields the address of the line's near end."""
        line = self

        class Handler(QuietHandler):
            def do_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = line.decide(self.command, self.path)
                if fault in ("unavailable", "too_many"):
                    line.refuse(self, 503 if fault == "unavailable" else 429)
                    return
                if fault == "hung_up":
                    self.close_connection = True
                    return
                if fault == "slow":
                    time.sleep(0.2)
                line.forward(self, body, fault)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_any  # noqa: N815

        with serving(Handler) as address:
            yield address

    def refuse(self, handler: QuietHandler, status: int) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def forward(self, handler: QuietHandler, body: bytes, fault: str) -> None:
        upstream = http.client.HTTPConnection(self._upstream, timeout=60)
        upstream.request(handler.command, handler.path, body, dict(handler.headers.items()))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if fault == "lost_answer":
            handler.close_connection = True
            return
        if fault == "unavailable_afterwards":
            self.refuse(handler, 503)
            return
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else len(content)
        handler.send_header("Content-Length", str(length or 0))
        handler.end_headers()
        if fault == "answer_cut_short":
            content = content[: len(content) // 2]
            handler.close_connection = True
        handler.wfile.write(content)


class HugeBucket:
    """Answers listings of `count` objects as the JSON API does, in pages of a thousand."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.requests = 0

    def name(self, number: int) -> str:
        return f"files/p{number // 10000:02d}/p{number:08d}/{number:064x}.dcm"

    @contextlib.contextmanager
    def open(self) -> Iterator[str]:
        """Yields its address."""
        bucket = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                bucket.requests += 1
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                start = int(query.get("pageToken", ["0"])[0])
                end = min(start + 1000, bucket.count)
                page: dict[str, Any] = {
                    "items": [
                        {"name": bucket.name(n), "size": "9000000"} for n in range(start, end)
                    ]
                }
                if end < bucket.count:
                    page["nextPageToken"] = str(end)
                content = json.dumps(page).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        with serving(Handler) as address:
            yield address


@contextlib.contextmanager
def google_machine() -> Iterator[None]:
    """Lets Google's libraries believe that this is one of Google's machines, with an account.

    Beam looks for credentials at its first gs:// path, and gives up after half a minute elsewhere.
    """

    class Metadata(QuietHandler):
        def do_GET(self) -> None:
            path = urllib.parse.urlsplit(self.path).path
            content, kind = "", "text/plain"
            if path.endswith("/token"):
                token = {"access_token": "none", "expires_in": 3600, "token_type": "Bearer"}
                content, kind = json.dumps(token), "application/json"
            elif "/service-accounts/" in path:
                account = {"email": "worker@example", "scopes": ["https://www.googleapis.com/auth"]}
                content, kind = json.dumps(account), "application/json"
            elif path.endswith("/project-id"):
                content = "some-project"
            elif path.endswith("/universe-domain"):
                content = "googleapis.com"
            self.send_response(200)
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

    with serving(Metadata) as address, pytest.MonkeyPatch.context() as patch:
        host = urllib.parse.urlsplit(address).netloc
        for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"):
            patch.setenv(name, host)
        yield


def assert_found_as_on_disk(bucket: str, folder: Path) -> None:
    """A search of a place finds what a search of a folder finds; both are empty before."""
    names = (
        "a.dcm", ".h.dcm", "p1/x.dcm", "p1/s/y.dcm", "p1/s/cx.dcm", "p1/.h/z.dcm", "p2/z.dcm",
        "_runs/mine.dcm", "out/_embedding_config.json", "out/_runs/1/drawn.png", "out/b.dcm",
    )  # fmt: skip
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
        storage.write_whole(f"{bucket}/{name}", b"x")
    for pattern in ("", "*", "p*", "**", "**/x.dcm", "p?/*.dcm", "[!a]*/*.dcm", "*/", "**/.h.dcm"):
        found = [
            sorted(
                ref.path.removeprefix(f"{place}/")
                for ref in find_images(f"{place}/{pattern}", layout="mirror")
            )
            for place in (str(folder), bucket)
        ]
        assert found[0] == found[1], pattern
