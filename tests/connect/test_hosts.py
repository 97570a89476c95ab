"""Whose question it is, where a remote asks outside of any call."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import mcp_types as types

from milepost.connect.hosts import Hosts, served
from milepost.core.records import CallContext, Stream
from milepost.wire.dispatch import speaking


class Session:
    """A host's session, as far as it is asked for roots."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def send_request(self, request: Any, result_type: Any, metadata: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root.model_validate({"uri": f"file:///{self.name}"})])


class Request:
    """One request of a host: what `Host` reads of the SDK's context."""

    def __init__(self, session: str) -> None:
        self.session = Session(session)
        self.request_id = 1
        self.protocol_version = "2025-11-25"
        self.meta = None


class Call:
    """The call of the wire that a request belongs to."""

    def __init__(self, session: str) -> None:
        self.call = CallContext("tool", {}, 1, "2025-11-25")
        self.stream = Stream("stream", "", 1, session=session)


def request(session: str) -> Any:
    speaking.set(Call(session))  # type: ignore[arg-type]
    return Request(session)


async def asked(hosts: Hosts) -> str:
    """Who is asked for roots, outside of any call."""
    answer = await hosts.list_roots(None)  # type: ignore[arg-type]
    return "nobody" if isinstance(answer, types.ErrorData) else str(answer.roots[0].uri)


async def test_a_question_of_no_call_goes_to_the_only_host_that_waits() -> None:
    hosts = Hosts()
    assert await asked(hosts) == "nobody"
    with hosts.serving(request("ann")), hosts.serving(request("ann")):
        assert served() is not None
        assert await outside(hosts) == "file:///ann"


async def test_a_question_of_no_call_is_not_shown_where_it_may_be_another_hosts() -> None:
    hosts = Hosts()
    with hosts.serving(request("ann")), hosts.serving(request("bob")):
        assert await outside(hosts) == "nobody"
    assert served() is None


async def test_on_a_pipe_all_requests_are_of_one_host() -> None:
    hosts = Hosts(one=True)
    with hosts.serving(request("ann")), hosts.serving(request("bob")):
        assert await outside(hosts) == "file:///bob"


async def test_what_a_request_began_no_longer_speaks_for_it_once_it_is_over() -> None:
    hosts = Hosts()
    with hosts.serving(request("ann")):
        began = contextvars.copy_context()
    assert began.run(served) is None


async def outside(hosts: Hosts) -> str:
    """As a session's own stream brings it: in a context that knows of no call."""
    return await asyncio.get_running_loop().create_task(asked(hosts), context=contextvars.Context())
