"""Letting new work in: bounds, the queue, and fairness among callers."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.core.errors import Overloaded
from milepost.engine.admission import Admission, Bounds, Place


def admission(inside: int = 2, each: int = 2, waiting: int = 10, wait: float = 10.0) -> Admission:
    return Admission(Bounds(inside, each, waiting, wait))


async def turn() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def wants(door: Admission, who: str) -> asyncio.Task[Place]:
    return asyncio.create_task(door.enter(who))


async def ended(*tasks: asyncio.Task[Place]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_so_much_is_let_in_and_the_next_when_one_leaves() -> None:
    door = admission()
    first, second = await door.enter("ann"), await door.enter("ann")
    third, fourth = wants(door, "ann"), wants(door, "ann")
    await turn()
    assert (door.inside, door.waiting, third.done()) == (2, 2, False)
    first.leave()
    first.leave()
    await turn()
    assert (door.inside, door.waiting, third.done(), fourth.done()) == (2, 1, True, False)
    second.leave()
    (await third).leave()
    (await fourth).leave()
    assert (door.inside, door.waiting) == (0, 0)


async def test_one_caller_gets_no_more_than_its_part() -> None:
    door = admission(inside=3, each=2)
    await door.enter("ann")
    await door.enter("ann")
    assert door.enter_nowait("ann") is None
    third = wants(door, "ann")
    await turn()
    assert door.enter_nowait("bob") is not None, "who waits for its own part holds up nobody"
    await ended(third)


async def test_one_callers_flood_keeps_no_other_callers_first_call_waiting() -> None:
    door = admission(inside=3, each=3)
    held = [await door.enter("ann") for _ in range(3)]
    flood = [wants(door, "ann") for _ in range(5)]
    await turn()
    bob, cid = wants(door, "bob"), wants(door, "cid")
    await turn()
    for place in held[:2]:
        place.leave()
    await turn()
    assert (bob.done(), cid.done(), any(task.done() for task in flood)) == (True, True, False)
    await ended(*flood)


async def test_a_full_queue_takes_no_more_and_says_so() -> None:
    door = admission(inside=1, waiting=2)
    await door.enter("ann")
    queue = [wants(door, "ann"), wants(door, "ann")]
    await turn()
    with pytest.raises(Overloaded, match="2 calls wait already") as refused:
        await door.enter("ann")
    assert refused.value.retry_after > 0
    await ended(*queue)


async def test_in_a_full_queue_the_longest_part_gives_way() -> None:
    door = admission(inside=1, waiting=3)
    held = await door.enter("ann")
    flood = [wants(door, "ann") for _ in range(3)]
    await turn()
    bob, cid = wants(door, "bob"), wants(door, "cid")
    await turn()
    assert [task.done() for task in flood] == [False, True, True]
    for task in flood[1:]:
        with pytest.raises(Overloaded, match="3 calls wait already"):
            task.result()
    with pytest.raises(Overloaded, match="3 calls wait already"):
        await door.enter("dan")
    held.leave()
    (await flood[0]).leave()
    (await bob).leave()
    (await cid).leave()
    assert (door.inside, door.waiting) == (0, 0)


async def test_a_queue_of_none_refuses_at_once() -> None:
    door = admission(inside=1, waiting=0)
    await door.enter("ann")
    with pytest.raises(Overloaded):
        await door.enter("bob")


async def test_who_has_waited_for_too_long_is_told_so() -> None:
    door = admission(inside=1, wait=0.01)
    await door.enter("ann")
    with pytest.raises(Overloaded, match=r"no place came free in 0\.01 s"):
        await door.enter("bob")
    assert door.waiting == 0


async def test_a_waiter_that_gives_up_leaves_the_queue_and_a_place_it_was_given() -> None:
    door = admission(inside=1)
    held = await door.enter("ann")
    bob, cid = wants(door, "bob"), wants(door, "cid")
    await turn()
    bob.cancel()
    await turn()
    assert door.waiting == 1
    held.leave()
    cid.cancel()
    await turn()
    assert (door.inside, door.waiting) == (0, 0)


async def test_a_waiter_that_gives_up_in_the_same_moment_is_passed_over() -> None:
    door = admission(inside=1, waiting=2)
    held = await door.enter("ann")
    first, second = wants(door, "bob"), wants(door, "bob")
    await turn()
    cid = wants(door, "cid")
    second.cancel()
    await turn()
    first.cancel()
    held.leave()
    await turn()
    assert (door.inside, cid.done()) == (1, True)


async def test_of_several_of_one_caller_one_may_give_up() -> None:
    door = admission(inside=1)
    held = await door.enter("ann")
    first, second = wants(door, "bob"), wants(door, "bob")
    await turn()
    first.cancel()
    await turn()
    assert door.waiting == 1
    held.leave()
    await turn()
    assert second.done()


async def test_without_room_elsewhere_nobody_is_let_in_until_there_is() -> None:
    room = False
    door = Admission(Bounds(5, 5, 5, 10.0), has_room=lambda: room)
    task = wants(door, "ann")
    await turn()
    assert not task.done()
    room = True
    door.admit()
    await turn()
    assert task.done()


OPERATIONS = st.lists(st.tuples(st.sampled_from(["enter", "leave", "give up"]), st.integers(0, 3)), max_size=60)


@given(OPERATIONS, st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))
def test_whatever_comes_bounds_hold_and_nobody_waits_beside_a_free_place(
    operations: list[tuple[str, int]], inside: int, each: int, waiting: int
) -> None:
    asyncio.run(_play(operations, Bounds(inside, each, waiting, 60.0)))


async def _play(operations: list[tuple[str, int]], bounds: Bounds) -> None:
    door, tasks = Admission(bounds), dict[asyncio.Task[Place], str]()
    for operation, number in operations:
        inside = [task for task in tasks if task.done()]
        waits = [task for task in tasks if not task.done()]
        if operation == "enter":
            who = "abcd"[number]
            tasks[wants(door, who)] = who
        elif operation == "leave" and inside:
            task = inside[number % len(inside)]
            task.result().leave()
            del tasks[task]
        elif waits:
            task = waits[number % len(waits)]
            task.cancel()
            del tasks[task]
        await turn()
        for task in [task for task in tasks if task.done() and task.exception() is not None]:
            assert isinstance(task.exception(), Overloaded)
            del tasks[task]
        _check(door, bounds, tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _check(door: Admission, bounds: Bounds, tasks: dict[asyncio.Task[Place], str]) -> None:
    inside = Counter(who for task, who in tasks.items() if task.done())
    waits = Counter(who for task, who in tasks.items() if not task.done())
    assert (door.inside, door.waiting) == (inside.total(), waits.total())
    assert inside.total() <= bounds.inside
    assert max(inside.values(), default=0) <= bounds.each
    assert waits.total() <= bounds.waiting
    if inside.total() < bounds.inside:
        assert all(inside[who] >= min(bounds.each, bounds.inside) for who in waits)
