"""The travel domain alone: bounded data, and changes that happen once per key."""

from __future__ import annotations

import multiprocessing
import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from travel_ops import data, domain
from travel_ops.domain import Hold, NotPossible

pytestmark = pytest.mark.usefixtures("travel_db")

DAY = date(2027, 3, 20)


def effects() -> list[tuple[str, int]]:
    with closing(sqlite3.connect(data.path())) as db:
        return db.execute("SELECT kind, calls FROM effects ORDER BY n").fetchall()


def state_of(hold: Hold) -> str:
    with data.reading() as db:
        query = "SELECT state FROM seats WHERE number = ? AND day = ? AND seat = ?"
        state: str = db.execute(query, (hold.number, hold.day.isoformat(), hold.seat)).fetchone()["state"]
    return state


def contents(path: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        tables = ("flights", "seats", "itineraries", "legs")
        return [row for table in tables for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3")]  # noqa: S608


def test_two_seasons_made_apart_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain.record_locators()
    first = contents(str(data.path()))
    monkeypatch.setenv("TRAVEL_OPS_DB", str(tmp_path / "another.db"))
    domain.record_locators()
    assert contents(str(data.path())) == first


def test_processes_that_open_a_new_file_at_once_make_it_once() -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        answers = [pool.apply_async(domain.record_locators) for _ in range(3)]
        assert [answer.get(timeout=30) for answer in answers] == [domain.record_locators()] * 3


def test_an_itinerary_is_found_by_its_locator_in_any_case() -> None:
    trip = domain.itinerary("qk7p2m")
    assert (trip.passenger, trip.fare, [leg.number for leg in trip.legs]) == (
        "Amira Haddad",
        "FLEX",
        ["MP101", "MP104"],
    )


def test_itineraries_are_found_by_part_of_a_name() -> None:
    assert [trip.pnr for trip in domain.itineraries_of("tanaka")] == ["ZB3N6D"]


def test_a_search_offers_only_flights_with_free_seats_and_the_cheapest_first() -> None:
    found = domain.flights("LIS", "CPH", DAY)
    assert found
    assert [flight.price for flight in found] == sorted(flight.price for flight in found)
    assert all(flight.free > 0 and flight.day == DAY for flight in found)


@pytest.mark.parametrize("day", [date(2027, 2, 28), date(2027, 5, 1)])
def test_out_of_season_nothing_flies_and_the_status_says_so(day: date) -> None:
    assert domain.flights("LIS", "CPH", day) == []
    with pytest.raises(NotPossible, match="The season is"):
        domain.flight_status("MP101", day)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: domain.itinerary("NOSUCH"), "six letters and digits"),
        (lambda: domain.fare("FIRST"), "LITE, FLEX, FULL"),
        (lambda: domain.destinations("JFK"), "LIS, CPH and VIE"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NotPossible, match=words):
        call()


def test_the_same_key_changes_once_and_returns_the_first_result() -> None:
    first = domain.hold_seat("k1", "QK7P2M", "MP103", DAY)
    again = domain.hold_seat("k1", "QK7P2M", "MP103", DAY)
    other = domain.hold_seat("k2", "QK7P2M", "MP103", DAY)
    assert again == first
    assert other.seat != first.seat
    assert effects() == [("hold_seat", 2), ("hold_seat", 1)]


def test_a_change_that_is_not_possible_leaves_nothing_behind() -> None:
    hold = Hold(id="gone", number="MP103", day=DAY, seat="2A")
    before = contents(str(data.path())) if data.path().exists() else None
    with pytest.raises(NotPossible, match="no longer held"):
        domain.rebook("k1", "QK7P2M", 1, hold, 25)
    assert effects() == []
    assert before is None or contents(str(data.path())) == before


def test_a_rebooking_moves_the_leg_frees_the_old_seat_and_takes_the_money() -> None:
    before = domain.itinerary("QK7P2M")
    hold = domain.hold_seat("k1", "QK7P2M", "MP103", DAY)
    booking = domain.rebook("k2", "QK7P2M", 1, hold, 40)
    after = domain.itinerary("QK7P2M")
    old = Hold(id="", number="MP101", day=before.legs[0].day, seat=before.legs[0].seat)
    assert (booking.number, booking.seat, after.price) == ("MP103", hold.seat, before.price + 40)
    assert after.legs[0].number == "MP103"
    assert (state_of(hold), state_of(old)) == ("booked", "free")


def test_a_released_seat_is_free_again_but_a_booked_one_stays_booked() -> None:
    hold = domain.hold_seat("k1", "QK7P2M", "MP103", DAY)
    domain.release_seat("k2", "QK7P2M", hold)
    assert state_of(hold) == "free"
    hold = domain.hold_seat("k3", "QK7P2M", "MP103", DAY)
    domain.rebook("k4", "QK7P2M", 1, hold, 0)
    domain.release_seat("k5", "QK7P2M", hold)
    assert state_of(hold) == "booked"


def test_refunds_follow_the_fare_unless_the_reason_is_beyond_the_traveller() -> None:
    lite, flex = domain.itinerary("R4T9WX"), domain.itinerary("QK7P2M")
    assert domain.refundable(lite, "other") == 0
    assert domain.refundable(lite, "bereavement") == lite.price
    assert domain.refundable(flex, "illness") == flex.price * 80 // 100 - 40


def test_a_ticket_is_refunded_once_whatever_the_key() -> None:
    domain.pay_refund("k1", "QK7P2M", 100, "illness", "Ines")
    with pytest.raises(NotPossible, match="not a valid ticket"):
        domain.pay_refund("k2", "QK7P2M", 100, "illness", "Ines")
    assert domain.itinerary("QK7P2M").status == "refunded"


def test_a_saved_plan_is_an_itinerary_named_by_its_key() -> None:
    chosen = [domain.flights("LIS", "VIE", DAY)[0]]
    plan = domain.save_plan("abcdef", "haddad", "LITE", chosen)
    assert plan == domain.save_plan("abcdef", "haddad", "LITE", chosen)
    assert (domain.itinerary(plan.pnr).status, plan.price) == ("planned", chosen[0].price)
