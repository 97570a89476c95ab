"""Whose is it: two people with tokens, and what each may reach of the other's (nothing)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from milepost.core.records import ANONYMOUS, LOCAL_USER
from milepost.wire.principals import principal_of
from wire.sample import Effects, a_server
from wire.serving import LIMIT, Raw, accept, call, events, request, serving, until
from wire.test_modern import ASKABLE, ask, retry

pytestmark = pytest.mark.anyio


def user(subject: str | None, *, client: str = "app", scopes: tuple[str, ...] = ()) -> AuthenticatedUser:
    token = AccessToken(
        token="secret", client_id=client, scopes=list(scopes), subject=subject, claims={"iss": "https://iss"}
    )
    return AuthenticatedUser(token)


def with_login(app: Any) -> Any:
    """Stands for the SDK's auth middleware: the header `x-user` names the verified subject."""

    async def logged_in(scope: Any, receive: Any, send: Any) -> None:
        named = dict(scope.get("headers") or {}).get(b"x-user")
        await app({**scope, "user": user(named.decode())} if named else scope, receive, send)

    return logged_in


@pytest.fixture
async def people(effects: Effects, store_path: Path) -> AsyncIterator[tuple[Raw, Raw]]:
    async with (
        serving(a_server(effects), store_path, wrap=with_login) as server,
        httpx2.AsyncClient(timeout=15) as http,
    ):
        yield (
            Raw(http, server.url, headers={"x-user": "alice"}),
            Raw(http, server.url, headers={"x-user": "bob"}),
        )


def test_who_calls_comes_from_the_verified_token() -> None:
    alice = principal_of({"user": user("alice", scopes=("read",))}, single_user=True)
    assert alice.owner == ("https://iss", "alice", "app")
    assert alice.person
    assert alice.scopes == ("read",)


def test_hazard_d4_a_machines_token_speaks_for_nobody_in_particular() -> None:
    assert not principal_of({"user": user("app")}, single_user=False).person
    assert not principal_of({"user": user(None)}, single_user=False).person


def test_hazard_p2_1_the_one_local_user_is_a_setting_and_never_a_guess() -> None:
    assert principal_of({}, single_user=False) == ANONYMOUS
    assert principal_of({}, single_user=True) == LOCAL_USER


async def test_another_persons_session_is_unknown(people: tuple[Raw, Raw]) -> None:
    alice, bob = people
    await alice.open()
    bob.session = alice.session
    for refused in (
        await bob.post(request("ping")),
        await bob.http.delete(bob.url, headers=bob._headers()),
    ):
        assert refused.status_code == 404
    async with bob.listen() as response:
        assert response.status_code == 404
    bob.headers = {}
    assert (await bob.post(request("ping"))).status_code == 404
    assert (await alice.post(request("ping"))).status_code == 200


async def test_another_persons_run_question_and_stream_are_out_of_reach(people: tuple[Raw, Raw]) -> None:
    alice, bob = people
    await alice.open()
    await bob.open()
    with anyio.fail_after(LIMIT):
        async with alice.stream(call("trip", {"name": "Ann"})) as response:
            stream = events(response)
            asked = await until(stream, method="elicitation/create")
            assert (await bob.post(accept(asked.message, day=1))).status_code == 404
            async with bob.listen(asked.id) as refused:
                assert refused.status_code == 400
            await alice.post(accept(asked.message, day=1))
            seat = await until(stream, method="elicitation/create")
            await alice.post(accept(seat.message, seat="1A"))
            result = (await until(stream)).message["result"]
        run_id = result["_meta"]["milepost/run_id"]
        refused = await bob.post(call("continue_run", {"run_id": run_id}))
        assert "no run" in refused.json()["error"]["message"]


async def test_another_persons_state_is_refused(people: tuple[Raw, Raw]) -> None:
    alice, bob = people
    first = await ask(alice, call("trip", {"name": "Ann"}))
    message = retry("trip", {"name": "Ann"}, first, {"q1": {"day": 1}})
    refused = await bob.modern(message, ASKABLE)
    assert refused.json()["error"]["message"] == "Invalid or expired requestState"
    assert list((await ask(alice, message))["inputRequests"]) == ["q2"]


async def test_the_same_call_of_two_people_is_two_runs(people: tuple[Raw, Raw]) -> None:
    alice, bob = people
    runs = [(await ask(person, call("trip", {"name": "Ann"})))["_meta"]["milepost/run_id"] for person in (alice, bob)]
    assert runs[0] != runs[1]


async def test_the_same_call_of_one_person_attaches_after_a_break(people: tuple[Raw, Raw]) -> None:
    alice, _ = people
    first = await ask(alice, call("trip", {"name": "Ann"}))
    again = await ask(alice, call("trip", {"name": "Ann"}))
    assert again["_meta"]["milepost/run_id"] == first["_meta"]["milepost/run_id"]
    assert again["_meta"]["milepost/attached"] is True
