"""The log lines of a run's life: it began, was taken over, is stuck, ended; each line with what is known of the run.

What an author's exception says may quote an answer, so of a failure only its kind is logged; `milepost runs show`
tells the rest.
"""

from __future__ import annotations

from typing import Any

import structlog

from milepost.core.attempts import Claim, Fence
from milepost.core.records import Run
from milepost.core.states import FINAL, RunState

log = structlog.get_logger("milepost.engine")


def known_of(run: Run, fence: Fence | None = None) -> dict[str, Any]:
    """The fields of every line that is said inside a run; `session` is the keyed hash, and absent where there is none.

    Bound around an attempt (`structlog.contextvars`), to which `stage` adds the stage that it is in.
    """
    fields: dict[str, Any] = {
        "run_id": run.id,
        "trace_id": run.call.trace_id,
        "tool": run.tool,
        "epoch": run.epoch,
        "attempt": fence.attempt_id[:8] if fence is not None else None,
        "session": run.call.session,
    }
    return {name: value for name, value in fields.items() if value is not None}


def tell_begun(claim: Claim) -> None:
    """An attempt begins. The first one of a run, and a takeover, are news; going on after an answer is everyday."""
    run, fields = claim.run, _where(claim.run, claim.fence)
    if claim.takeover or run.crashes:  # a suspect is claimed some time after it was taken from its dead replica
        log.warning("run taken over", crashes=run.crashes, **fields)
    elif run.epoch == 1:
        log.info("run began", version=run.version, lane=run.lane.value, **fields)
    else:
        log.debug("run goes on", **fields)


def tell_settled(run: Run, fence: Fence) -> None:
    """An attempt was given back, and this is how the run now stands."""
    fields = _where(run, fence)
    if run.state in FINAL:
        log.info("run ended", state=run.state.value, **_why(run), **fields)
    elif run.state is RunState.STUCK:
        log.warning("run is stuck", reason=run.reason, **fields)
    else:
        log.debug("run rests", state=run.state.value, **fields)


def _where(run: Run, fence: Fence) -> dict[str, Any]:
    return known_of(run, fence) | ({"stage": run.stage} if run.stage else {})


def _why(run: Run) -> dict[str, str]:
    """The kind of failure or the cause of a cancel: what stands before the first colon."""
    why: dict[str, str] = {} if run.reason is None else {"reason": run.reason.partition(":")[0]}
    return why | ({} if run.merged_into is None else {"merged_into": run.merged_into})
