"""A local server with the parts of the Hugging Face Hub's API that reading models needs."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from buckets import QuietHandler, serving

# Larger files are answered with a redirect, as those in large file storage are.
LARGE, PAGE = 1000, 3


@dataclass
class Repository:
    """A model's repository.

    Attributes:
        commits: the files of each commit.
        refs: commit by branch or tag.
        gated: readers need the server's token; others learn that it is gated.
        private: readers need the server's token; others do not learn that it exists.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        """Adds a commit to a branch and returns its id."""
        seed = json.dumps([len(self.commits), sorted(files)])
        name = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
        self.commits[name], self.refs[ref] = files, name
        return name


@dataclass
class Hub:
    """The server's content, and what it was asked.

    Attributes:
        address: the value for HF_ENDPOINT.
        repositories: by `owner/name`.
        token: the one that opens gated and private repositories.
        status: answered instead of everything else, if not 0.
        cut: the first download of a large file breaks off here, if not 0.
        requests: (method, path) in order.
        paths: the files whose content was sent.
    """

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    token: str = "hf_aSecretThatNobodyMaySee"
    status: int = 0
    cut: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def add(self, name: str, files: dict[str, bytes], **options: bool) -> Repository:
        """Adds a repository with one commit."""
        self.repositories[name] = Repository(**options)
        self.repositories[name].commit(files)
        return self.repositories[name]

    @contextlib.contextmanager
    def open(self) -> Iterator[Hub]:
        """Serves it on the loopback."""
        hub = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802
                _Answer(hub, self).run()

            do_HEAD = do_GET  # noqa: N815

        with serving(Handler) as self.address:
            yield self


class _Answer:
    def __init__(self, hub: Hub, handler: Any) -> None:
        self._hub, self._handler = hub, handler

    def run(self) -> None:
        hub, handler = self._hub, self._handler
        hub.requests.append((handler.command, handler.path))
        url = urlsplit(handler.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        is_api = parts[:2] == ["api", "models"]
        parts = parts[2:] if is_api else parts
        if hub.status:
            return self._send(hub.status, b"")
        if parts[0] == "large":
            assert not handler.headers.get("Authorization")
            stored = hub.repositories["/".join(parts[1:3])].commits[parts[3]]
            return self._content("/".join(parts[4:]), stored["/".join(parts[4:])])
        repository = hub.repositories.get("/".join(parts[:2]))
        knows = handler.headers.get("Authorization") == f"Bearer {hub.token}"
        if repository is None or (repository.private and not knows):
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        if repository.gated and not knows and not is_api:  # the listing is public
            is_known = bool(handler.headers.get("Authorization"))
            return self._send(403 if is_known else 401, b"", {"X-Error-Code": "GatedRepo"})
        verb, ref, *rest = parts[2:] or ["revision", "main"]
        commit = repository.refs.get(ref, ref)
        if commit not in repository.commits:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        files, path = repository.commits[commit], "/".join(rest)
        if not is_api:
            return self._resolve("/".join(parts[:2]), commit, files, path)
        if verb == "tree":
            return self._tree(files, path, int(parse_qs(url.query).get("cursor", ["0"])[0]))
        siblings = [{"rfilename": name} for name in files]
        return self._json({"id": "/".join(parts[:2]), "sha": commit, "siblings": siblings})

    def _tree(self, files: dict[str, bytes], folder: str, start: int) -> None:
        """Answers page by page."""
        below = [
            {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
            for path, data in sorted(files.items())
            if path.startswith(f"{folder}/" if folder else "")
        ]
        if not below:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        more = {}
        if start + PAGE < len(below):
            path = self._handler.path.partition("?")[0]
            url = f"{self._hub.address}{path}?recursive=true&cursor={start + PAGE}"
            more = {"Link": f'<{url}>; rel="next"'}
        return self._json(below[start : start + PAGE], more)

    def _resolve(self, name: str, commit: str, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(data)}"', "Accept-Ranges": "bytes"}
        if len(data) <= LARGE:
            return self._content(path, data, headers)
        linked = {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(data))}
        # Another host, which must not see the token.
        storage = self._hub.address.replace("127.0.0.1", "localhost")
        where = {"Location": f"{storage}/large/{name}/{commit}/{path}"}
        return self._send(302, b"", headers | linked | where)

    def _content(self, path: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        start = int((self._handler.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        sent, status = data[start:], 206 if start else 200
        cut = self._hub.cut if self._handler.command == "GET" and len(data) > LARGE else 0
        if self._handler.command == "GET":
            self._hub.paths.append(path)
        if cut:
            self._hub.cut = 0
        ranges = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self._send(status, sent, (headers or {}) | ranges, cut)

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), headers)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, cut: int = 0
    ) -> None:
        handler = self._handler
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        if cut:
            handler.send_header("Connection", "close")
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data[:cut] if cut else data)
        if cut:
            handler.close_connection = True


def _oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def files_below(folder: Path, prefix: str = "") -> dict[str, bytes]:
    """Returns the files of a local folder for `Hub.add`."""
    return {
        prefix + path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
