"""The wire's limits and waits, in one place: every one has a reason and a default that suits one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from milepost.engine.admission import Bounds

LOOPBACK_HOSTS = ("127.0.0.1:*", "localhost:*", "[::1]:*", "127.0.0.1", "localhost", "[::1]")
LOOPBACK_ORIGINS = (
    "http://127.0.0.1:*",
    "http://localhost:*",
    "http://[::1]:*",
    "http://127.0.0.1",
    "http://localhost",
    "http://[::1]",
)


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Sizes are in bytes or pieces, times in seconds."""

    max_body: int = 4 * 1024 * 1024
    """The SDK's own default; a larger POST gets 413 before it is read."""
    max_sessions: int = 10_000
    """Open sessions over all replicas; one more gets 503 with Retry-After."""
    session_cache: int = 1_000
    """Rebuilt connections kept per replica: each holds some 20 KB; a colder session is rebuilt from its row."""
    session_trust: float = 5.0
    """How long a replica believes its copy of a session row: a DELETE elsewhere is seen after at most this."""
    seen_every: float = 60.0
    """A session's `seen_at` is written at most this often: it only feeds idle expiry."""
    commit_after: float = 0.05
    """A call that is done sooner is answered as plain JSON, without the dearer event stream."""
    heartbeat: float = 5.0
    """A stream silent for so long says that work goes on."""
    ping_every: float = 15.0
    """Comment lines on idle streams, so that no proxy cuts them."""
    promote_after: float = 10.0
    """A stateless call that runs longer gets rows, so that its client can come back to it."""
    max_wait: float | None = 240.0
    """The server closes a handshake stream itself after so long; its client comes back by Last-Event-ID."""
    retry: float = 1.0
    """What `retry` tells a client: how soon to come back."""
    retry_after: int = 5
    """Seconds in `Retry-After` while draining or full."""
    drain_grace: float = 25.0
    """How long a drain waits for calls in flight."""
    param_schemas: float = 30.0
    """How long a tool's input schema is remembered for checking `Mcp-Param-*` headers."""
    calls: int = 500
    """Calls without rows (stateless tools, resources, prompts) that this replica works on at the same time."""
    calls_percent: int = 75
    """Percent of `calls` that one principal may have in work, so that another's first call finds room."""
    queue: int = 1000
    """Calls that may wait for that; one more gets 503 with Retry-After."""
    queue_wait: float = 10.0
    """How long one waits before it gets the same."""
    held_wait: float = 30.0
    """How long a call waits for a replica that accepts its run, before it is told how to come back for it."""
    max_said: int = 10_000
    """Notifications that one in-memory call may queue for a reader that lags behind."""
    single_user: bool = False
    """All callers are the one local user (never inferred from the bind address)."""
    platform_sessions: bool = False
    """Serve `Mcp-Session-Id`s that a managed runtime made: each request stands for itself, nothing is kept."""
    check_hosts: bool = True
    """Whether Host and Origin are checked (DNS rebinding)."""
    allowed_hosts: Sequence[str] = LOOPBACK_HOSTS
    """The `Host` headers that clients may use; `name:*` is any port. Another one gets 421."""
    allowed_origins: Sequence[str] = LOOPBACK_ORIGINS
    """Web pages that may call: `https://name`, `http://name:*`. Another gets 403; without `Origin` all may."""
    audience: str | None = None
    """Who `requestState` is for; None: the server's name."""
    request_state_keys: Sequence[bytes] = ()
    """Key ring, first one seals; empty: one key kept by the store."""

    def in_memory(self) -> Bounds:
        """How many calls without rows are let in."""
        return Bounds(self.calls, max(1, self.calls * self.calls_percent // 100), self.queue, self.queue_wait)
