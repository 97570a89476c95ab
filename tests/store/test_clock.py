"""The real clock."""

from __future__ import annotations

from milepost.store import SystemClock, clock


def test_boot_time_goes_on_and_the_boot_has_a_name() -> None:
    real = SystemClock()
    first = real.boot()
    assert real.boot() >= first > 0
    assert real.boot_id() == SystemClock().boot_id() != ""
    assert real.wall() > 1_700_000_000
    assert real.monotonic() <= real.monotonic()


def test_where_nobody_names_boots_they_all_have_one_name(monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(clock, "_BOOT_ID", tmp_path / "none")
    monkeypatch.setattr(clock, "_SYSCTL", tmp_path / "none")
    assert clock._boot_id.__wrapped__() == "unknown-boot"
    sysctl = tmp_path / "sysctl"
    sysctl.write_text("#!/bin/sh\necho THE-BOOT\n")
    sysctl.chmod(0o755)
    monkeypatch.setattr(clock, "_SYSCTL", sysctl)
    assert clock._boot_id.__wrapped__() == "THE-BOOT"
