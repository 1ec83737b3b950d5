"""A DICOMweb service of a few lines, which has the habits of stores that cannot be run here."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from buckets import QuietHandler, serving

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"

# What a store may do with limit and offset: what it answers out of all its matches.
Paging = Callable[[list[Any], int, int], list[Any]]


def exact(found: list[Any], limit: int, offset: int) -> list[Any]:
    return found[offset : offset + limit]


def everything(found: list[Any], limit: int, offset: int) -> list[Any]:
    return found


def capped(found: list[Any], limit: int, offset: int) -> list[Any]:
    return found[offset : offset + min(limit, 100)]


def no_offset(found: list[Any], limit: int, offset: int) -> list[Any]:
    return found[:limit]


def overlapping(found: list[Any], limit: int, offset: int) -> list[Any]:
    return found[max(offset - 3, 0) : offset + min(limit, 10)]


class Store:
    """Instances of two a series and four a study, listed backwards.

    Attributes:
        answers: called with a handler and a path before anything else; whether it has answered.
        asked: the paths and headers of all requests.
    """

    def __init__(self, count: int, paging: Paging = exact, searches: tuple[str, ...] = ()) -> None:
        self.names = [
            (f"1.2.{n // 4}", f"1.3.{n // 2}", f"1.4.{n}") for n in reversed(range(count))
        ]
        self.paging, self.refused = paging, searches
        self.refusal = 400
        self.warning = ""
        self.content_type = 'multipart/related; type="application/dicom"; boundary=b0'
        self.content = b"--b0\r\nContent-Type: application/dicom\r\n\r\nimage\r\n--b0--\r\n"
        self.answers: Callable[[QuietHandler, str], bool] = lambda handler, path: False
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._lock = threading.Lock()

    def paths(self) -> list[str]:
        return sorted(f"studies/{a}/series/{b}/instances/{c}" for a, b, c in self.names)

    @contextlib.contextmanager
    def open(self) -> Iterator[str]:
        """Yields the address of the service."""
        store = self

        class Handler(QuietHandler):
            def do_any(self) -> None:
                with store._lock:
                    store.asked.append((self.path, dict(self.headers)))
                if not store.answers(self, self.path):
                    store.answer(self)

            do_GET = do_any  # noqa: N815

        with serving(Handler) as address:
            yield f"dicomweb+{address}/dw"

    def answer(self, handler: QuietHandler) -> None:
        parts = urlsplit(handler.path)
        words = parts.path.removeprefix("/dw/").split("/")
        given = dict(zip(words[0::2], words[1::2], strict=False))
        what = words[-1] if len(words) % 2 else ""
        if not what:
            send(handler, 200, self.content, **{"Content-Type": self.content_type})
            return
        if parts.path.removeprefix("/dw") in self.refused:
            send(handler, self.refusal, b'{"message": "no such search"}')
            return
        asked = dict(parse_qsl(parts.query))
        levels = {"studies": 1, "series": 2, "instances": 3}[what]
        found = list(
            dict.fromkeys(
                name[:levels]
                for name in self.names
                if given.get("studies", name[0]) == name[0]
                and given.get("series", name[1]) == name[1]
            )
        )
        page = self.paging(found, int(asked["limit"]), int(asked.get("offset", 0)))
        body = [
            {
                tag: {"vr": "UI", "Value": [uid]}
                for tag, uid in zip((STUDY, SERIES, INSTANCE), name, strict=False)
            }
            for name in page
        ]
        headers = {"Content-Type": "application/dicom+json"}
        if self.warning:
            headers["Warning"] = self.warning
        send(handler, 200 if body else 204, json.dumps(body).encode() if body else b"", **headers)


def send(handler: QuietHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """Sends a complete answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
