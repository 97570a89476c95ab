"""The PostgreSQL store. Needs `asyncpg`: `pip install "milepost[postgres]"`. Its SQL stands in `sql/*.sql`."""

from milepost.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
