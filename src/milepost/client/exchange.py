"""What a link sends through, and what comes back: HTTP and a child process look the same to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Protocol

from milepost.client.authorizing import Waiting
from milepost.client.sse import ServerSent
from milepost.client.telemetry import Where

Silence = Callable[[], float]
"""How many seconds a request may hear nothing, as things stand."""


class Response(Protocol):
    """The answer to one sending, as far as it has come."""

    status: int
    """As of HTTP: 400 and more is a refusal."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def is_events(self) -> bool: ...

    @property
    def is_json(self) -> bool: ...

    @property
    def gave_signs(self) -> bool:
        """Whether the server has said, while it worked, that it lives."""
        ...

    def be_patient(self, patient: bool) -> None:
        """While a person is asked, silence is no sign of death."""
        ...

    def give_up(self) -> None:
        """It is known from elsewhere that nothing more will come."""
        ...

    async def body(self, limit: int | None = None) -> bytes:
        """The whole body, of at most `limit` bytes (default: a message's). Raises Fault."""
        ...

    async def events(self) -> list[ServerSent] | None:
        """The next events (maybe none yet), None when the server has ended the stream. Raises Fault."""
        ...

    async def aclose(self, *, keep: bool = False) -> None:
        """`keep`: all that matters was read."""
        ...


class Endpoint(Protocol):
    """One server, to send to."""

    silence_is_no: bool
    """Old servers say nothing at all to the version probe."""

    @property
    def where(self) -> Where: ...

    async def send(
        self,
        method: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        waiting: Waiting = nullcontext,
        silence: Silence | None = None,
    ) -> Response:
        """The head of the response to an HTTP method. The caller closes it. Raises Fault, SessionGone.

        `waiting`: told of waits for authorization. `silence`: default the policy's.
        """
        ...
