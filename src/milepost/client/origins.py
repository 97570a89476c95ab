"""What is remembered of each server, for as long as the process lives: its era, its health, its retry budget, and what
its silence means.

Clients of one process share it, so a server that fails for one is spared by all.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from milepost.client.policy import Policy
from milepost.client.retrying import Breaker, Budget

_WORK: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Requests that may take a server long; to any other it answers at once, or is ill."""
_MOST = 1000
"""Servers that are remembered; the one that was not used for longest is forgotten first."""


@dataclass(eq=False, slots=True)
class Origin:
    """One server's record."""

    policy: Policy
    breaker: Breaker = field(init=False)
    budget: Budget = field(init=False)
    trouble: str = ""
    """What was wrong with it last."""
    handshake_until: float = 0.0
    """Until when (UTC seconds) it is taken to speak no modern version."""
    gives_signs: bool = False
    """It was seen to say, while it worked, that it is alive: from then on its silence says that it isn't."""

    def __post_init__(self) -> None:
        self.breaker = Breaker(self.policy)
        self.budget = Budget(self.policy)

    def remember_handshake(self, until: float | None = None) -> None:
        """`until`: UTC seconds, where it is known from a journal."""
        self.handshake_until = time.time() + self.policy.remember_era if until is None else until

    @property
    def speaks_handshake(self) -> bool:
        return time.time() < self.handshake_until

    def forget(self) -> None:
        self.handshake_until = 0.0

    def may_be_silent(self, method: str) -> bool:
        """Whether nothing need be heard of it while it serves such a request."""
        return method in _WORK and not self.gives_signs

    def silence(self, method: str, limit: float | None) -> float:
        """Seconds without a byte after which such a request is taken for dead. `limit`: its caller's, in seconds."""
        if not self.may_be_silent(method):
            return self.policy.silence
        return max(self.policy.silence, self.policy.quiet, limit or -math.inf)


class Origins:
    """All of them, by (origin, policy): clients with other limits are judged apart."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Policy], Origin] = OrderedDict()

    def of(self, origin: str, policy: Policy) -> Origin:
        known = self._known.get((origin, policy))
        if known is None:
            known = self._known[origin, policy] = Origin(policy)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        self._known.move_to_end((origin, policy))
        return known


SHARED = Origins()
"""Of this process. Hand a client another one to judge for itself."""
