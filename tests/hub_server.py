"""A hub on 127.0.0.1 with one model, for the hub's real client: its API, its addresses of files, and the faults of a network."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1000
"""Bytes from which on a file is a large one, whose SHA-256 the hub states."""


@dataclass
class Hub:
    """What is served, what was asked for, and what goes wrong."""

    repository: str
    files: Mapping[str, bytes]
    address: str = ""
    asked: list[str] = field(default_factory=list)
    """Method, path and range of every request."""
    seen: list[str] = field(default_factory=list)
    """Authorisation of every request."""
    cut_after: int = 0
    """Bytes after which the connection breaks, once for each request of a large file; 0: never."""
    changed: dict[str, bytes] = field(default_factory=dict)
    """Files that are sent with other bytes than the list states."""

    def listing(self) -> dict[str, object]:
        """Return the answer to ``model_info`` with the metadata of files."""
        siblings = []
        for name, content in self.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git_hash(content)}
            if len(content) >= LARGE:
                entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return {
            "id": self.repository,
            "modelId": self.repository,
            "sha": COMMIT,
            "siblings": siblings,
            "private": False,
        }


def sha256(content: bytes) -> str:
    """Return the hash that the hub states of a large file."""
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    """Return Git's hash, which the hub states of a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub; its address is set."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

        def _answer(self, status: int, headers: Mapping[str, object], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            large = "resolve" in self.path and len(body) >= LARGE
            self.wfile.write(body[: hub.cut_after] if hub.cut_after and large else body)
            if hub.cut_after and large and hub.cut_after < len(body):
                self.close_connection = True

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked = self.headers.get("Range", "")
            hub.asked.append(f"{self.command} {path} {asked}".rstrip())
            hub.seen.append(self.headers.get("Authorization", ""))
            if path in (f"/api/models/{hub.repository}/revision/{name}" for name in (COMMIT, "main")):
                self._answer(200, {"Content-Type": "application/json"}, json.dumps(hub.listing()).encode())
                return
            name = path.partition("/resolve/")[2].partition("/")[2]
            if not path.startswith(f"/{hub.repository}/resolve/") or name not in hub.files:
                self._answer(404, {"X-Error-Code": "RepoNotFound"}, b"")
                return
            stated = hub.files[name]
            content = hub.changed.get(name, stated)
            headers: dict[str, object] = {
                "X-Repo-Commit": COMMIT,
                "ETag": f'"{git_hash(stated)}"',
                "Accept-Ranges": "bytes",
            }
            if len(stated) >= LARGE:
                headers["X-Linked-Etag"], headers["X-Linked-Size"] = f'"{sha256(stated)}"', len(stated)
            begin = int(asked.removeprefix("bytes=").partition("-")[0] or 0)
            if asked:
                headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            self._answer(206 if asked else 200, headers, content[begin:])

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, name="hub", daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
