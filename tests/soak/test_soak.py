"""A short form of the soak test: see ``tests/soak/__main__.py`` for what it checks."""

from __future__ import annotations

import random

import pytest

from tests.soak.__main__ import run

SECONDS = 12


@pytest.mark.parametrize("name", ["redis", "memcached", "postgresql"])
def test_a_store_that_is_stopped_and_killed(name: str) -> None:
    if name == "postgresql":
        pytest.importorskip("psycopg")
    seed = random.SystemRandom().randrange(10**6)
    wrong, counted = run(name, SECONDS, seed)
    assert wrong == [], f"seed {seed}: {counted}"
    assert counted["add_item: done"] > 0
    assert counted["stopped"] + counted["killed"] > 0
