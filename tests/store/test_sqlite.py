"""The SQLite store passes the conformance suite."""

from __future__ import annotations

from store.contract import StoreContract


class TestSqliteStore(StoreContract):
    """Every test of the contract, on a real file."""
