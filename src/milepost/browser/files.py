"""Serves the browser module at `/milepost/`, its entry being `/milepost/client.js`.

The files are few and small: they are read once, and a request is looked up among them by its whole path, so no path can
lead anywhere else. They are public, as the script of any page is, and answer before anybody is asked who they are.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from starlette.types import Scope, Send

FOLDER: Final = "/milepost/"
ENTRY: Final = FOLDER + "client.js"

Headers = list[tuple[bytes, bytes]]


class BrowserFiles:
    """The module's files, by path."""

    def __init__(self) -> None:
        found = [one for one in files(__package__).joinpath("js").iterdir() if one.name.endswith(".js")]
        self._bodies = {FOLDER + one.name: one.read_bytes() for one in found}
        self._tags = {path: f'"{hashlib.sha256(body).hexdigest()[:32]}"' for path, body in self._bodies.items()}

    def has(self, path: str) -> bool:
        return path in self._bodies

    async def serve(self, scope: Scope, send: Send) -> None:
        """One request for a path that is here. GET and HEAD; what the browser has already is not sent again."""
        if scope["method"] not in ("GET", "HEAD"):
            await _reply(send, 405, [(b"allow", b"GET, HEAD"), (b"content-length", b"0")])
            return
        body, tag = self._bodies[scope["path"]], self._tags[scope["path"]]
        # `no-cache`: kept, but asked for at each load, so that a page never runs the parts of two releases.
        headers: Headers = [(b"etag", tag.encode()), (b"cache-control", b"no-cache")]
        if _knows(scope, tag):
            await _reply(send, 304, headers)
            return
        headers += [
            (b"content-type", b"text/javascript; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        await _reply(send, 200, headers, body if scope["method"] == "GET" else b"")


def _knows(scope: Scope, tag: str) -> bool:
    """Whether `If-None-Match` names this very file (RFC 9110, 13.1.2: a weak tag matches as well, and so does `*`)."""
    named = b",".join(value for name, value in scope["headers"] if name == b"if-none-match").decode("latin-1")
    tags = {one.strip().removeprefix("W/") for one in named.split(",")}
    return tag in tags or "*" in tags


async def _reply(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
