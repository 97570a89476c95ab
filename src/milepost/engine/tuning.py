"""Every bound of the engine, in one place, with the reason for its default. Seconds unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field

from milepost.core.same_call import SameCallRules
from milepost.engine.admission import Bounds


@dataclass(frozen=True, slots=True)
class Tuning:
    """The engine's settings. `milepost.settings` fills it from flags, environment and `milepost.toml`."""

    lease: float = 10.0
    """How long a replica may be silent before its runs are taken over. Renewed every third of it."""
    lease_margin: float = 1.0
    """How long before the end of its lease an attempt stops starting steps."""
    attempts: int = 200
    """Attempts that run at the same time on this replica."""
    kept_percent: int = 20
    """Percent of `attempts` that new calls never get: kept for runs that go on (answers, takeovers)."""
    principal_percent: int = 60
    """Percent of `attempts` that the new calls of one principal may hold, so that another's first call finds room."""
    queue: int = 1000
    """New calls that may wait on this replica for room; one more gets 503 with Retry-After."""
    queue_wait: float = 10.0
    """How long one waits there before it gets the same: longer, and its client has given it up by itself."""
    takeovers: int = 8
    """Runs taken over from dead replicas in one go: a mass failure must not stampede."""
    poll: float = 1.0
    """How often runs are looked for where no notice came. Notices make it faster, never correct."""
    quiet: float = 0.02
    """How long an attempt with open questions must be silent before it is suspended."""
    rest: float = 1.0
    """How long an attempt with only held-back calls must be silent before it is a replay mismatch."""
    linger: float = 0.005
    """How long a mark that nobody waits for may wait for company in one commit."""
    hold_retry: float = 2.0
    """A retry due sooner is waited for in memory; a later one is a timer and costs rows only."""
    backoff_limit: float = 60.0
    """The longest pause between two tries of a step."""
    unwind_grace: float = 5.0
    """How long an attempt's function may take to unwind before it is abandoned behind its fence."""
    cleanup_limit: float = 30.0
    """How long the clean-up of a cancelled run may take."""
    drain_limit: float = 25.0
    """How long steps in flight may go on after SIGTERM."""
    answer_within: float = 7 * 86400.0
    """How long a person has for a question where nothing else is said."""
    park_for: float = 900.0
    """How long a run whose modern request was closed waits to be taken up again."""
    run_timeout: float = 3600.0
    """Working seconds of a whole run."""
    crashes_alone: int = 2
    """From so many crashes on a run is a suspect: it runs alone."""
    crashes_stuck: int = 5
    """After so many crashes a run is stuck."""
    max_value: int = 1 << 20
    """Bytes of one recorded value."""
    max_entries: int = 5000
    """Journal entries of one run."""
    max_unwritten: int = 100
    """Notifications that may wait to be written before the tool that adds more waits too."""
    max_events: int = 10_000
    """Events of one run."""
    max_questions: int = 100
    """Questions in a row without a step finished between them."""
    same_call: SameCallRules = field(default_factory=SameCallRules)

    def new_calls(self) -> Bounds:
        """How many new calls are let in: of each its first attempt counts."""
        new = max(1, self.attempts * (100 - self.kept_percent) // 100)
        each = max(1, self.attempts * self.principal_percent // 100)
        return Bounds(new, min(new, each), self.queue, self.queue_wait)
