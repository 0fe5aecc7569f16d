"""The page ``docs/logs.rst`` has the rows of the messages that exist, and no others.

``tests/test_layers.py`` checks that every logger and every message is on the page.
"""

from __future__ import annotations

import pytest

from tests.log_page import PAGE, ROWS, Row, described_by, listed_loggers


def test_the_table_is_read_completely() -> None:
    assert len(ROWS) == PAGE.count("    * - ``") > 30
    assert all(len(row.advice.strip()) > 5 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.message[:40])
def test_every_row_describes_a_message_of_its_logger(row: Row) -> None:
    found = described_by(row)
    assert len({call.format for call in found}) == 1, found
    assert row.logger in found[0].loggers


def test_every_logger_but_the_parent_has_a_message() -> None:
    assert sorted({row.logger for row in ROWS}) == sorted(set(listed_loggers()) - {""})
