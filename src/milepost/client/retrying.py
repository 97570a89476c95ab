"""When to try again, and when to stop: pure. Time and chance are handed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

from mcp import MCPError

from milepost.client.policy import Policy


class Known(Enum):
    """What is known of a request that has no response."""

    NOT_SENT = "not sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Fault(Exception):
    """One try of a request failed below the protocol: nobody's word on the call itself."""

    def __init__(
        self,
        known: Known,
        reason: str,
        *,
        again: bool = True,
        retry_after: float | None = None,
        status: int = 0,
        said: MCPError | None = None,
    ) -> None:
        """`again`: whether another try may help. `said`: the server's own error, raised when tries end."""
        super().__init__(reason)
        self.known = known
        self.reason = reason
        self.again = again
        self.retry_after = retry_after
        self.status = status
        self.said = said


class SessionGone(Fault):
    """The server doesn't know the session (404): it did nothing, and a new session is needed first."""

    def __init__(self) -> None:
        super().__init__(Known.REFUSED, "the server does not know the session any more", status=404)


class StreamEnded(Fault):
    """The server closed a stream that can be read on: it wants its client back later, and nothing is wrong."""

    def __init__(self) -> None:
        super().__init__(Known.UNKNOWN, "the server ended the stream")


def ceiling(policy: Policy, failures: int) -> float:
    """The longest wait after so many failures in a row (1 or more), in seconds."""
    return min(policy.max_delay, policy.first_delay * 2.0 ** min(failures - 1, 30))


def delay(policy: Policy, failures: int, chance: float, retry_after: float | None = None) -> float:
    """How long to wait: full jitter below the ceiling, but never less than the server asked for.

    `chance`: 0 to 1, uniform. `retry_after`: seconds, as parsed.
    """
    waited = ceiling(policy, failures) * chance
    if retry_after is None:
        return waited
    return max(waited, min(retry_after, policy.max_retry_after))


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds out of a `Retry-After` header (RFC 9110, 10.2.3: seconds, or a date). None where it says nothing."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


@dataclass(slots=True)
class Budget:
    """Retries that a server may cost: each takes one, successes and time give back."""

    policy: Policy
    left: float = -1.0
    at: float = 0.0

    def __post_init__(self) -> None:
        if self.left < 0:
            self.left = self.policy.retry_budget

    def take(self, now: float) -> bool:
        """Whether one more retry may be made; it is then counted. `now`: monotonic seconds."""
        self._refill(now)
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def succeeded(self) -> None:
        self.left = min(self.policy.retry_budget, self.left + self.policy.budget_per_success)

    def _refill(self, now: float) -> None:
        if self.at:
            gained = max(0.0, now - self.at) * self.policy.budget_per_second
            self.left = min(self.policy.retry_budget, self.left + gained)
        self.at = now


class Circuit(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class Breaker:
    """A server that fails again and again is given a rest; then one caller tries, and the others wait and see."""

    policy: Policy
    state: Circuit = Circuit.CLOSED
    failures: int = 0
    rests: int = 0
    until: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until a try may be made; 0: now. `now`: monotonic seconds."""
        if self.state is Circuit.CLOSED:
            return 0.0
        return max(0.0, self.until - now)

    def trying(self, now: float) -> None:
        """A try begins. The first one after a rest is the probe, and the others are held back for another rest."""
        if self.state is not Circuit.CLOSED:
            self.state = Circuit.HALF_OPEN
            self.until = now + self._rest()

    def succeeded(self) -> None:
        self.state, self.failures, self.rests = Circuit.CLOSED, 0, 0

    def failed(self, now: float) -> None:
        """A try failed in a way that says the server is ill (not: that it said no)."""
        self.failures += 1
        if self.state is Circuit.HALF_OPEN or self.failures >= self.policy.breaker_failures:
            self.state = Circuit.OPEN
            self.until = now + self._rest()
            self.rests += 1

    def _rest(self) -> float:
        return min(self.policy.breaker_max_rest, self.policy.breaker_rest * 2.0 ** min(self.rests, 20))
