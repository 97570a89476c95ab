"""`requestState`: which run a retried call belongs to, sealed so that nobody can bend it.

It carries no answers (those are in the journal), so its size doesn't grow, and it has no time limit of its
own: it lives as long as its run does. It is bound to the principal, the method, the tool, its arguments and
the audience; whatever doesn't fit is refused in the SDK's own frozen words, and only the log says why.
Cipher and key ring are the SDK's (AES-256-GCM; `keys[0]` seals, all open).
Source: MCP 2026-07-28 basic/patterns/mrtr.mdx, server rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from mcp.server.request_state import AESGCMRequestStateCodec, InvalidRequestState
from mcp_types import INVALID_PARAMS

from milepost.core.records import Principal
from milepost.wire.rpc import Refused

_log = structlog.get_logger(__name__)

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Bound:
    """The request that a state belongs to."""

    principal: Principal
    method: str
    tool: str
    arguments: Mapping[str, Any]


class Seal:
    """Seals and opens `requestState` under a key ring (each key at least 32 bytes)."""

    def __init__(self, keys: Sequence[bytes], *, audience: str) -> None:
        self._codec = AESGCMRequestStateCodec(keys)
        self._audience = audience

    def state(self, run_id: str, questions: Collection[int], bound: Bound) -> str:
        """A state for `run_id`, of which `questions` (ids) are being asked."""
        claims = {**self._claims(bound), "run": run_id, "q": sorted(questions)}
        return self._codec.seal(_canonical(claims))

    def open(self, state: object, bound: Bound) -> str:
        """The run id in a state. Raises Refused in frozen words if it isn't ours, or is for another request."""
        try:
            claims = json.loads(self._codec.unseal(state)) if isinstance(state, str) else {}
        except InvalidRequestState as exc:
            raise _invalid(str(exc)) from None
        for name, value in self._claims(bound).items():
            if claims.get(name) != value:
                raise _invalid(f"claim {name!r} is of another request")
        run_id = claims.get("run")
        if not isinstance(run_id, str):
            raise _invalid("no run")
        return run_id

    def _claims(self, bound: Bound) -> dict[str, Any]:
        return {
            "v": _FORMAT,
            "aud": self._audience,
            "sub": _digest(bound.principal.owner),
            "m": bound.method,
            "t": bound.tool,
            "a": _digest(bound.arguments),
        }


_SKEW = 600.0
"""Seconds by which the clocks of two replicas may differ."""


class UnhurriedCodec:
    """`RequestStateCodec` for the SDK's own states, which carry times: good on a replica whose clock is wrong, too.

    The SDK refuses a state from more than a minute ahead, and one past its end. Its times are written with as much to
    spare on both sides as clocks may differ: a state lives for its time to live, and up to that much longer.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._codec = AESGCMRequestStateCodec(keys)

    def seal(self, payload: bytes) -> str:
        claims = json.loads(payload)
        claims["iat"] -= _SKEW
        claims["exp"] += _SKEW
        return self._codec.seal(json.dumps(claims, separators=(",", ":")).encode())

    def unseal(self, token: str) -> bytes:
        """Raises InvalidRequestState."""
        return self._codec.unseal(token)


def unknown_state() -> Refused:
    """For a state whose run was swept: never a new run."""
    return _invalid("its run is no longer kept")


def _invalid(reason: str) -> Refused:
    _log.warning("requestState rejected", reason=reason)
    return Refused(400, INVALID_PARAMS, "Invalid or expired requestState", data={"reason": "invalid_request_state"})


def _digest(value: object) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()[:32]


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict).encode()
