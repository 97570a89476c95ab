"""The errors, as one tree: one class per cause.

Three families that must not be mixed up:

- `MilepostError`: plain exceptions. Authors may catch them; callers see their text.
- `Signal`: BaseExceptions by which the engine unwinds an attempt. `except Exception` in a tool
  (or in a framework around it) must not swallow them.
- `StoreError`: the storage below us failed; nothing was told to anyone as done.

`PeerError` belongs to none of them: it is not our error, but what a client answered.
"""

from __future__ import annotations


class MilepostError(Exception):
    """Root of every error that an author or a caller may see."""


# --- what an author did -------------------------------------------------------------------------


class AuthorError(MilepostError):
    """The workflow's code asks for something that can't be made durable. The text says what to change."""


class Unstorable(AuthorError):
    """A value (argument or result) can't be written to the journal, or is a secret."""


class AmbiguousCall(AuthorError):
    """The same call came from two concurrent branches: give each its own `key(...)`."""


class MisplacedCall(AuthorError):
    """A verb was used where it has no meaning: a question inside a step, a stage outside a run."""


# --- what a run may meet ------------------------------------------------------------------------


class StepError(MilepostError):
    """A step failed for good. `kind` is the class name of what it raised; the text is its message."""

    def __init__(self, step: str, kind: str, message: str) -> None:
        super().__init__(f"step {step!r} failed: {kind}: {message}")
        self.step = step
        self.kind = kind
        self.message = message


class StepTimeout(StepError):
    """A step ran over its own time limit (seconds of work)."""


class StepUnknown(StepError):
    """A step's outcome can't be known (it was cut in a thread and isn't idempotent)."""


class StageTimeout(MilepostError):
    """A stage used up its working time."""

    def __init__(self, stage: str, limit: float) -> None:
        super().__init__(f"stage {stage!r} took longer than its limit of {limit:g} s of work")
        self.stage = stage
        self.limit = limit


class QuestionExpired(MilepostError):
    """Nobody answered a question in time. Caught by the author it is an answer like any other."""

    def __init__(self, message: str = "the question expired before anyone answered it") -> None:
        super().__init__(message)


class LimitReached(MilepostError):
    """A run met one of its limits (value size, journal length, questions in a row, events, work)."""


class ReplayMismatch(MilepostError):
    """The code no longer calls what the journal holds; nothing was run. Names both calls."""

    def __init__(self, wanted: str, recorded: str) -> None:
        super().__init__(
            f"replay mismatch: the workflow now calls {wanted}, but its journal holds {recorded}, which this "
            "attempt has not reached. Nothing was run. Either serve the older code again, or accept the change "
            "with `milepost runs retry RUN --accept-drift` (the recorded call is then left unused)."
        )
        self.wanted = wanted
        self.recorded = recorded


# --- what a caller did --------------------------------------------------------------------------


class CallerError(MilepostError):
    """A request can't be served as it is. Nothing was lost; the text says what to do."""


class UnknownRun(CallerError):
    """No such run, or it isn't the caller's (the two are told apart for nobody)."""


class RequestIdUsed(CallerError):
    """In this session the request's id names an earlier call, which is another one."""

    def __init__(self, request_id: str | int) -> None:
        super().__init__(
            f"the id {request_id!r} was used already, for another request of this session: "
            "give each request an id of its own"
        )


class CallIdUsed(CallerError):
    """The call id names an earlier call of the caller, which is another one."""

    def __init__(self) -> None:
        super().__init__(
            "the call id was used already, for another tool or with other arguments: give each call an id of its own, "
            "and repeat one only with the same call"
        )


class QuestionClosed(CallerError):
    """The question was answered already, expired, or was withdrawn."""


class InvalidAnswer(CallerError):
    """An answer breaks the question's schema; it was not recorded, and the question stays open."""


class Overloaded(CallerError):
    """A bound was reached (sessions, runs). `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConfigurationError(MilepostError):
    """A setting, a target or a tool's declaration is wrong. Raised at start, never later."""


# --- what a client answered ---------------------------------------------------------------------


class PeerError(Exception):
    """The client answered a question with a JSON-RPC error; raised again on every replay."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


# --- how the engine unwinds an attempt ----------------------------------------------------------


class Signal(BaseException):
    """Root of the engine's own unwinding. Not for authors to catch."""


class Suspended(Signal):
    """The attempt ends here: its open questions are recorded and a later attempt goes on."""


class Fenced(Signal):
    """Another attempt owns the run now; nothing of this one counts any more."""


class RunCancelled(Signal):
    """Raised by the pending question or step of a run that is being cancelled.

    `finally` blocks may still call steps, for a bounded time, so that a held seat is released.
    """

    def __init__(self, reason: str = "cancelled") -> None:
        super().__init__(reason)
        self.reason = reason


# --- storage ------------------------------------------------------------------------------------


class StoreError(MilepostError):
    """The store could not do what was asked; nothing of it was done."""


class StoreUnavailable(StoreError):
    """The store can't write (full, read-only, gone). `/readyz` fails until it can."""


class StoreTooNew(StoreError):
    """The store was written by a newer Milepost that says this one may not read it."""


class Unreplayable(StoreError):
    """A run has entries of a format this release doesn't know."""
