"""Many threads and processes that count on one counter at the same time."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import pytest

from pyramid_kvs.kvs import KVS
from pyramid_kvs.ratelimit.counting import LimitCheck, Rule, request_counter
from pyramid_kvs.ratelimit.counting.turns import Turns
from tests.children import FORKS, is_true_in_child
from tests.ratelimit.stores import STRATEGY_NAMES

PROCESSES, THREADS, TRIES = 4, 16, 20
MANY = 10**9

_shared: dict[str, Any] = {}


def _ask(number: int) -> int:
    """Count in several threads; return how many requests were admitted."""
    admitted: list[bool] = []

    def run() -> None:
        for _ in range(TRIES):
            admitted.append(_shared["count"](_shared["checks"]).allowed)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    _shared["barrier"].wait(60)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(admitted)


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
@pytest.mark.parametrize("name", ["memcache", "postgresql"])
def test_no_request_is_refused_far_below_the_limit(
    request: pytest.FixtureRequest, name: str, strategy: str
) -> None:
    if name == "memcache":
        driver = KVS(name, {"servers": [request.getfixturevalue("memcached_server").url]})
    else:
        server = request.getfixturevalue("own_postgres")(max_connections="200")
        driver = KVS(name, {"url": server.url})
        driver.initialize_schema()
    rule = Rule(strategy, MANY, 3_600_000, MANY)
    context = multiprocessing.get_context("fork")
    _shared.update(
        count=request_counter(driver),
        barrier=context.Barrier(PROCESSES),
        checks=[LimitCheck(rule, "k", "k")],
    )
    with context.Pool(PROCESSES) as pool:
        admitted = pool.map(_ask, range(PROCESSES), chunksize=1)
    assert admitted == [THREADS * TRIES] * PROCESSES
    result = request_counter(driver)([LimitCheck(rule._replace(cost=0), "k", "k")]).results[0]
    assert result is not None
    total = PROCESSES * THREADS * TRIES
    if strategy == "gcra":  # a few units have drained
        assert MANY - total <= result.remaining
    else:
        assert result.remaining == MANY - total
    driver.close()


def test_turns_are_taken_in_the_order_of_arrival() -> None:
    turns, order = Turns(), []
    threads = []

    def run(number: int) -> None:
        with turns.take(["k"]):
            order.append(number)

    with turns.take(["k"]):
        assert turns.is_contended(["other", "k"])
        for number in range(5):
            threads.append(threading.Thread(target=run, args=(number,)))
            threads[-1].start()
            while len(turns.of("k").waiting) <= number:
                pass
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert not turns.is_contended(["k"])


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_process_takes_a_turn_that_its_parent_has(fork: Any) -> None:
    turns = Turns()
    with turns.take(["k"]):
        assert is_true_in_child(lambda: not turns.is_contended(["k"]), fork)
    assert not turns.is_contended(["k"])
