"""The shop's SQLite database."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, name TEXT, cents INTEGER);
CREATE TABLE IF NOT EXISTS customers (id INTEGER PRIMARY KEY, email TEXT);
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, product INTEGER, cents INTEGER);
INSERT OR REPLACE INTO products VALUES (1, 'teapot', 2400), (2, 'kettle', 3900);
"""


class Store:
    """One connection for each call, so that it may be used from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._cursor() as cursor:
            for statement in filter(None, map(str.strip, SCHEMA.split(";"))):
                cursor.execute(statement)

    def product(self, product_id: int) -> tuple[str, int] | None:
        with self._cursor() as cursor:
            cursor.execute("SELECT name, cents FROM products WHERE id = ?", (product_id,))
            found: tuple[str, int] | None = cursor.fetchone()
            return found

    def add_customer(self, email: str) -> None:
        with self._cursor() as cursor:
            # Written into the statement, as in many an old code base. Only fit for an example.
            literal = email.replace("'", "''")
            cursor.execute(f"INSERT INTO customers (email) VALUES ('{literal}')")

    def takings(self) -> tuple[int, int]:
        """Number of orders, and what they brought in."""
        with self._cursor() as cursor:
            cursor.execute("SELECT count(*), coalesce(sum(cents), 0) FROM orders")
            found: tuple[int, int] = cursor.fetchone()
            return found

    @contextmanager
    def _cursor(self) -> Iterator[sqlite3.Cursor]:
        # OTel's instrumentation sees what goes through a cursor, and not `connection.execute`.
        connection = sqlite3.connect(self._path)
        try:
            with connection:
                yield connection.cursor()
        finally:
            connection.close()
