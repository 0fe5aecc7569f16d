"""Go through the postgresql driver's table: its keys, and its expired rows."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...exceptions import KVSError
from .client import Client
from .columns import LONGEST_KEY, from_int8, int8, like, rows, successor
from .statements import Statement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

log = logging.getLogger("pyramid_kvs.drivers.postgresql")

#: After this many written rows, as many pages of the table are searched for expired rows: one
#: page for each row. That is more than a row fills.
EVERY = 16
PAGES = 128
ROWS_OF_PAGE = 6


def scan(
    client: Client, statement: Statement, prefix: bytes, pattern: bytes, count: int
) -> Iterator[bytes]:
    """Run ``scan`` or ``flush`` for each part of the keys; return the full keys that it finds.

    :param pattern: of :meth:`KVS.get_keys`, as bytes. At least the keys that match are found.
    :param count: how many rows one statement goes through.
    """
    head = (prefix + re.split(rb"[*?]", pattern)[0])[:LONGEST_KEY]
    condition = like(prefix, pattern)
    low: bytes | None = head
    while low is not None:
        params = (low, successor(head), condition, int8(count))
        result = client.run(statement, params, repeatable=True)
        low = None
        for full_key, last in rows(result):
            if full_key is not None:
                yield full_key
            elif last is not None:
                low = last + b"\x00"


# -- expired rows ----------------------------------------------------------------------------


class ExpiredRows:
    """Removes expired rows, page by page, in separate statements that skip locked rows.

    A few of them are removed after some writes.
    """

    def __init__(self, client: Client, statement: Statement) -> None:
        self._client = client
        self._statement = statement
        self._rows_written = 0
        self._page: int | None = None

    def remove_all(self) -> int:
        """Remove all expired rows; return how many there were."""
        total = page = 0
        pages = 1
        while page < pages:
            result = self._client.run(self._statement, _params(page, PAGES), repeatable=True)
            removed, pages = _removed(result)
            total += removed
            if removed < PAGES * ROWS_OF_PAGE:
                page += PAGES
        return total

    def note_written(self, count: int = 1) -> None:
        """Count rows that were written. After some of them, remove a few expired ones."""
        self._rows_written += count
        if self._rows_written < EVERY:
            return
        pages = min(self._rows_written, PAGES)
        self._rows_written = 0
        try:
            self._remove_some(pages)
        except KVSError as error:
            log.debug("expired rows were not removed: %s", error)

    def _remove_some(self, pages: int) -> None:
        page = self._page or 0
        result = self._client.run_aside(self._statement, _params(page, pages))
        if result is None:
            return
        removed, size = _removed(result)
        if self._page is None:  # so that short-lived processes do not all begin with the same
            self._page = random.randrange(max(1, size))
        elif removed < pages * ROWS_OF_PAGE:
            self._page = page + pages if page + pages < size else 0


def _params(first: int, pages: int) -> tuple[bytes, bytes, bytes]:
    return b"(%d,0)" % first, b"(%d,0)" % (first + pages), int8(pages * ROWS_OF_PAGE)


def _removed(result: PGresult) -> tuple[int, int]:
    """Return how many rows were removed, and how many pages the table has."""
    removed, size = (from_int8(result.get_value(0, column) or b"") for column in (0, 1))
    return removed, size
