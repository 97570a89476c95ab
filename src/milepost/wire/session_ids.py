"""Session ids: 128 random bits and a keyed tag, so that garbage is refused without a look-up.

The tag proves only that one of our replicas made the id; who may use it is in the session's row.
Logs never show an id: `reference` gives the keyed hash that stands for it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

_TAG = 9
"""Bytes of the tag: a guess passes once in 2^72, and then finds no row."""


class SessionIds:
    """Makes and recognises session ids under one key (32 bytes, shared by all replicas of a store)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def new(self) -> str:
        body = _text(secrets.token_bytes(16))
        return body + self._tag(body)

    def genuine(self, session_id: str) -> bool:
        """Whether one of our replicas made this id."""
        body, tag = session_id[:-12], session_id[-12:]
        return len(session_id) == 34 and hmac.compare_digest(tag.encode(), self._tag(body).encode())

    def reference(self, session_id: str) -> str:
        """What logs, joins and runs show instead of the id: 16 hex digits."""
        return hmac.new(self._key, b"ref:" + session_id.encode(), hashlib.sha256).hexdigest()[:16]

    def _tag(self, body: str) -> str:
        return _text(hmac.digest(self._key, b"tag:" + body.encode(), "sha256")[:_TAG])


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
