"""What both eras need of the world around them, gathered once by the endpoint."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mcp.server.lowlevel import Server

from milepost.core.records import JSONObject, Lane, Run
from milepost.engine.admission import Admission
from milepost.seams import Store
from milepost.wire.floor import Floor
from milepost.wire.kernel import SdkKernel, shape_for_wire
from milepost.wire.limits import WireLimits
from milepost.wire.rpc import Message
from milepost.wire.seal import Seal
from milepost.wire.session_ids import SessionIds
from milepost.wire.streams import Shape
from milepost.wire.target import Hosted


class Traffic:
    """What is open in this replica, so that a drain can end it."""

    def __init__(self) -> None:
        self.draining = False
        self._enders: set[Callable[[], None]] = set()
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request in flight."""
        self._busy += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    @contextmanager
    def stream(self, end: Callable[[], None]) -> Iterator[None]:
        """One stream that a drain ends by calling `end`."""
        self._enders.add(end)
        if self.draining:
            end()
        try:
            yield
        finally:
            self._enders.discard(end)

    async def drain(self, grace: float) -> bool:
        """End the streams and wait for what is in flight; whether all was done within `grace` seconds."""
        self.draining = True
        for end in tuple(self._enders):
            end()
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


@dataclass(slots=True)
class Parts:
    """The hosted server, the engine, the store, and the wire's own keys and limits."""

    hosted: Hosted
    state: Any
    """What the server's lifespan yielded."""
    runs: Any
    """The engine's front door."""
    store: Store
    limits: WireLimits
    seal: Seal
    session_ids: SessionIds
    floor: Floor
    admission: Admission
    """The door for calls without rows."""
    traffic: Traffic = field(default_factory=Traffic)
    live: dict[str, Any] = field(default_factory=dict)
    """Hot calls in this replica's memory (`hot.LiveCall`), by run id."""
    followers: dict[str, int] = field(default_factory=dict)
    """How many streams of this replica follow a run."""
    watched: dict[str, set[Callable[[], None]]] = field(default_factory=dict)
    """By stream id: how to end the sockets that show it."""

    def noise(self, size: int) -> bytes:
        """Random bytes for ids."""
        return secrets.token_bytes(size)

    @property
    def server(self) -> Server[Any]:
        return self.hosted.server

    def kernel(self) -> SdkKernel:
        return SdkKernel(self.server, self.state)

    def lane(self, tool: object) -> Lane | None:
        """How a call of this tool is served: as a run of the engine, hot, or (None) the short way."""
        if not isinstance(tool, str):
            return None
        if tool in self.hosted.catalogue.specs:
            return Lane.WORKFLOW
        known = self.hosted.tools.get(tool)
        may_ask = self.hosted.unlisted_may_ask if known is None else known.lane == "hot"
        return Lane.HOT if may_ask else None

    def is_stateful(self, tool: object) -> bool:
        """Whether a call of this tool is a run that any replica can go on with, so that it can be made again."""
        spec = self.hosted.catalogue.specs.get(tool) if isinstance(tool, str) else None
        return spec is not None and spec.replay_safe

    @property
    def may_wait(self) -> bool:
        """Whether any tool of this server may come to wait for answers."""
        return self.hosted.unlisted_may_ask or any(tool.lane != "stateless" for tool in self.hosted.tools.values())

    def outcome(self, run: Run) -> JSONObject:
        """The stored outcome of a final run."""
        outcome: JSONObject = json.loads(run.outcome or "{}")
        return outcome

    def shaper(self, version: str) -> Shape:
        """Puts inner results into the form of `version`."""
        server = self.server

        def shape(result: JSONObject) -> Message:
            return shape_for_wire(result, version, server)

        return shape

    @contextmanager
    def following(self, run_id: str) -> Iterator[None]:
        """One more stream of this replica follows the run."""
        self.followers[run_id] = self.followers.get(run_id, 0) + 1
        try:
            yield
        finally:
            self.followers[run_id] -= 1
            if not self.followers[run_id]:
                del self.followers[run_id]

    @contextmanager
    def watching(self, stream_id: str, end: Callable[[], None]) -> Iterator[None]:
        """A socket shows this stream; `end` closes it."""
        sockets = self.watched.setdefault(stream_id, set())
        sockets.add(end)
        try:
            yield
        finally:
            sockets.discard(end)
            if not sockets:
                self.watched.pop(stream_id, None)

    def end_watching(self, stream_id: str) -> None:
        """Close the sockets that show this stream here; the stream itself goes on."""
        for end in tuple(self.watched.get(stream_id, ())):
            end()
