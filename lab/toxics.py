"""What can be wrong with a connection, in toxiproxy's words: values that a `faults.Proxy` reads.

A toxic works on data that goes `downstream` (server to client), `upstream` (client to server) or both. Its `toxicity`
is the share of connections (of messages, for `Duplicate` and `Reorder`) that it befalls. Seconds and bytes, where
toxiproxy has milliseconds and kilobytes. One thing differs on purpose: TCP loses nothing out of the middle of a stream,
so what `Timeout` holds back comes through once it is removed, as after a network that was cut off and is whole again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["upstream", "downstream"]


@dataclass(eq=False, slots=True, kw_only=True)
class Toxic:
    """Base of all. One object is one fault: it can be added once, is compared by identity, and counts what it did."""

    stream: Direction | Literal["both"] = "both"
    toxicity: float = 1.0
    hits: int = 0
    """Connections (messages, for Duplicate and Reorder) that it has befallen."""

    def on(self, direction: Direction) -> bool:
        return self.stream in (direction, "both")


@dataclass(eq=False, slots=True)
class Latency(Toxic):
    """Data comes later by `latency`, give or take `jitter`; its order stays, and it flows on meanwhile."""

    latency: float
    jitter: float = 0.0


@dataclass(eq=False, slots=True)
class Bandwidth(Toxic):
    """At most `rate` bytes a second."""

    rate: float


@dataclass(eq=False, slots=True)
class SlowClose(Toxic):
    """The end of the connection comes later by `delay`."""

    delay: float


@dataclass(eq=False, slots=True)
class Timeout(Toxic):
    """Nothing comes through, and the connection is closed after `timeout`; 0: never, it is half-open."""

    timeout: float = 0.0


@dataclass(eq=False, slots=True)
class ResetPeer(Toxic):
    """Both ends get a TCP reset after `timeout`."""

    timeout: float = 0.0


@dataclass(eq=False, slots=True)
class Slicer(Toxic):
    """Data comes in slices of `average_size` bytes, give or take `size_variation`, with `delay` between them."""

    average_size: int
    size_variation: int = 0
    delay: float = 0.0


@dataclass(eq=False, slots=True)
class LimitData(Toxic):
    """The connection is closed after so many bytes."""

    bytes: int


@dataclass(eq=False, slots=True)
class Duplicate(Toxic):
    """A whole HTTP POST comes a second time, on a connection of its own, whose answer nobody reads."""


@dataclass(eq=False, slots=True)
class Reorder(Toxic):
    """A whole HTTP POST waits until another message has overtaken it, at most for `delay`."""

    delay: float
