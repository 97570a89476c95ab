"""What a failure of the database means: whose fault it is, and whether the verb may have been done.

Every verb carries its own proof (run id, attempt id, append token, digest of the answer), so one whose outcome is not
known is simply made again on a new connection: it finds what it did before, behind the lock of the run's row (HAZARDS
B7). So there are only three kinds: try again, a rule of ours, and the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg

from milepost.core.errors import Fenced, StoreError, StoreUnavailable, UnknownRun


class JournalGap(StoreError):
    """An append's entries don't follow the stored journal: the attempt counted wrongly. Nothing was written."""


_OURS: dict[str, Callable[[str], BaseException]] = {
    "MP001": lambda _text: Fenced(),
    "MP002": JournalGap,
    "MP003": StoreError,
    "MP004": UnknownRun,
}
"""What the verbs raise, by SQLSTATE."""

BROKEN = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncio.IncompleteReadError)
"""What the driver raises where a connection broke, also in the middle of something (InternalClientError)."""

_NOT_STORABLE = "22"
"""Data exceptions: a number that is too large, a character that can't be kept. The store itself is well."""

_AGAIN = (
    "08",  # the connection broke
    "57P",  # the server is shut down, crashed, or starting
    "40001", "40P01",  # serialization, deadlock
    "25006",  # this server takes no writes (any more): another one does
    "53300",  # too many connections
)  # fmt: skip


def may_be_tried_again(error: BaseException) -> bool:
    """Whether the same verb on a new connection may succeed."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_AGAIN)
    return isinstance(error, BROKEN)


def is_meeting(error: BaseException) -> bool:
    """Whether two equal verbs met, both about to insert the same: made again, the second finds what the first did."""
    return isinstance(error, asyncpg.UniqueViolationError)


def in_our_words(error: BaseException, where: str) -> BaseException:
    """The error that a caller gets. Anything that is none of the database's is left as it is."""
    if isinstance(error, asyncpg.PostgresError):
        made = _OURS.get(error.sqlstate or "")
        if made is not None:
            return made(str(error))
        if (error.sqlstate or "").startswith(_NOT_STORABLE):
            return StoreError(f"a value can't be stored: {error}")
        return StoreUnavailable(f"the store {where} refused: {error} ({type(error).__name__})")
    if may_be_tried_again(error):
        return StoreUnavailable(f"the store {where} can't be reached: {error or type(error).__name__}")
    return error
