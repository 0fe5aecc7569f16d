"""The figures are exactly those of the table.

A lower figure belongs into the table, so that it cannot rise again. A higher one needs a reason.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.figures import measuring, table
from tests.figures.measuring import Figures
from tests.servers import RedisServer, need

Pair = tuple[Mapping[str, Figures], Mapping[str, Figures]]

#: The optional libraries that are missing.
ENVIRONMENTS = [[], ["msgspec"], ["hiredis"], ["hiredis", "msgspec"]]


@pytest.fixture(scope="module", params=ENVIRONMENTS, ids=lambda missing: f"without {missing}")
def figures(request: pytest.FixtureRequest, redis_session: RedisServer) -> Pair:
    """The figures now, and those of the table."""
    pytest.importorskip("hiredis")
    pytest.importorskip("msgspec")
    missing = request.param
    redis_session.ensure().clear()
    return measuring.measured(redis_session.url, missing), table.read()[1][table.title(missing)]


def check(figures: Pair, column: str) -> None:
    found, expected = (
        {name: getattr(row, column) for name, row in part.items()} for part in figures
    )
    assert found == expected, "python -m tests.figures writes the table"


def test_calls(figures: Pair) -> None:
    check(figures, "calls")


def test_all_calls(figures: Pair) -> None:
    versions = table.read()[0]
    if measuring.versions() != versions:
        pytest.skip(f"the figures are for {versions}")
    check(figures, "all_calls")


def test_round_trips(figures: Pair) -> None:
    check(figures, "trips")


def test_system_calls(figures: Pair) -> None:
    need("strace")
    if figures[0]["read"].system_calls is None:
        pytest.skip("strace may not trace processes here")
    check(figures, "system_calls")
