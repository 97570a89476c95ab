"""Every limit of the client, each with its reason. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """How hard a client tries, how long it waits, and how much it lets a server make it hold."""

    # --- trying again ---
    first_delay: float = 0.1
    """The ceiling of the first wait; each further one doubles it (exponential backoff, full jitter)."""
    max_delay: float = 10.0
    """No wait is longer, unless the server's `Retry-After` says so."""
    give_up_after: float = 120.0
    """Without a sign of life from the server for so long, a request ends with what is known. Longer than a rolling
    update, shorter than a person's patience."""
    max_retry_after: float = 300.0
    """A `Retry-After` beyond this is taken for this."""
    retry_budget: float = 100.0
    """Retries that one server may cost in a row: an outage must not become a storm."""
    budget_per_success: float = 0.2
    """What a success gives back to the budget."""
    budget_per_second: float = 2.0
    """What time gives back to it."""

    # --- the circuit breaker, one for each server ---
    breaker_failures: int = 8
    """Failures in a row, of all callers together, after which the server is given a rest."""
    breaker_rest: float = 1.0
    """The first rest; each further one in a row doubles it."""
    breaker_max_rest: float = 30.0
    """The longest rest."""

    # --- waiting ---
    reach_within: float = 30.0
    """How long the first contact may take, its retries included: a server that is being restarted is back by then."""
    connect_within: float = 10.0
    """One connection, and the time to write a request to it."""
    idle_connection: float = 1.5
    """A connection that was idle for so long is not used again. A server that closes it at the moment of a call leaves
    that call's outcome unknown, and the common ones close theirs after 2 s (gunicorn) or 5 s (uvicorn, Node)."""
    silence: float = 60.0
    """A response of which nothing is heard for so long is taken for dead, and resumed, where the server gives signs of
    life while it works: the Python SDK's event streams do every 15 s, Milepost oftener. While a person is asked,
    silence is expected."""
    quiet: float = 300.0
    """The same where a server works that was never seen to give one: plain JSON has no room for it. A call's own time
    limit is waited for if that is longer. The official client waits as long."""
    vanished: float = 60.0
    """A connection is given up when the machine at its other end acknowledges nothing for so long, however quiet its
    server may be (TCP keepalive)."""
    max_work: float = 86400.0
    """Working time after which a call with a time limit ends although it still makes progress."""
    poll_first: float = 0.05
    """First wait where a server only says "not yet" (a state and no question); doubles up to `poll_max`."""
    poll_max: float = 2.0
    """The longest such wait."""
    farewell: float = 2.0
    """How long the goodbye (ending the session, cancelling a request, a child's process that ends) may take."""
    remember_era: float = 86400.0
    """How long it is remembered that a server speaks no modern version; then it is asked again."""
    forget_answers: float = 7 * 86400.0
    """How long finished calls stay in the journal, for people to look at."""

    # --- what a server can make us hold ---
    max_message: int = 16 * 2**20
    """One message. The official SDK caps an event at 1 MiB, and a plain response not at all."""
    max_session_id: int = 1024
    """Characters. Real ones have 32 to 200."""
    max_unfinished: int = 1000
    """Failed calls whose answers are kept in memory, where there is no journal."""
    max_open_questions: int = 64
    """Of one call, at the same time."""
    max_redirects: int = 5
    """Within the server's own origin. Elsewhere none is followed."""
    unread_events: int = 1000
    """Events that a slow reader of `client.events` may leave unread."""
    max_tool_pages: int = 100
    """Pages of a tool list that are read to learn whether a call may be re-issued."""
