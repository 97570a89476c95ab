"""One question, several streams: the newest stream of a session asks it."""

from __future__ import annotations

import anyio
import pytest

from wire.serving import LIMIT, Raw, accept, call, events, until

pytestmark = pytest.mark.anyio


async def test_hazard_p2_9_a_question_is_asked_on_one_stream_of_a_session_at_a_time(raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"}, id=1)) as response:
            one = events(response)
            asked = await until(one, method="elicitation/create")
            async with raw.stream(call("trip", {"name": "Ann"}, id=2)) as second:
                two = events(second)
                which = await until(two, method="elicitation/create")
                join = which.message["params"]["requestedSchema"]["properties"]
                name, field = next(iter(join.items()))
                choices = field.get("enum") or [one["const"] for one in field["oneOf"]]
                await raw.post(accept(which.message, **{name: choices[0]}))

                moved = await until(two, method="elicitation/create")
                assert moved.message["params"]["message"] == "Which day, Ann?"
                withdrawn = await until(one, method="notifications/cancelled")
                assert withdrawn.message["params"]["requestId"] == asked.message["id"]
            again = await until(one, method="elicitation/create")
            assert again.message["params"]["message"] == "Which day, Ann?"
            assert (await raw.post(accept(again.message, day=1))).status_code == 202
            seat = await until(one, method="elicitation/create")
            await raw.post(accept(seat.message, seat="1A"))
            assert (await until(one)).message["result"]["content"][0]["text"] == "Ann: B-11A"
