"""Limits on a cluster: where the counters are, and how often the nodes are asked."""

from __future__ import annotations

import multiprocessing
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from webtest import TestApp

from pyramid_kvs.kvs import KVS
from pyramid_kvs.ratelimit import limiter_of
from pyramid_kvs.ratelimit.listing import clear
from tests.ratelimit.stores import (
    STRATEGY_NAMES,
    Settings,
    charging_app,
    make_app,
    statuses,
    store_settings,
)
from tests.servers import RedisCluster, RedisServer, slot_of, wait_until
from tests.stores import CLUSTERS, server_of, timeouts

ADDRESS = "192.0.2.1"
PATIENT = timeouts("redis-cluster")
LIMIT: dict[str, Any] = {"limit": 3, "window": 600}
BY_ADDRESS = {**LIMIT, "by": "address", "name": "by address"}
MANY = [{**LIMIT, "limit": 1000, "strategy": name, "name": name} for name in STRATEGY_NAMES]
#: Tokens that hostile clients could choose, and an honest one that is too long for a key.
TOKENS = [
    "{",
    "}",
    "{}",
    "}{",
    "{a}",
    "x{a}",
    "{a}x",
    "{}{a}",
    "{{a}}",
    "a}",
    "a",
    "é{é}",
    "z" * 99,
]


@pytest.fixture(params=CLUSTERS)
def cluster(request: pytest.FixtureRequest) -> RedisCluster:
    found: RedisCluster = server_of(request.param, request)
    return found


@pytest.fixture
def store(cluster: RedisCluster) -> Settings:
    return {"kvs": "redis", "kvs_kwargs": {"url": cluster.url, **PATIENT}}


def keys_of(cluster: RedisCluster) -> set[str]:
    return {key.decode() for keys in cluster.everywhere("KEYS", "*") for key in keys}


def scripts_of(cluster: RedisCluster) -> list[int]:
    """Return how many scripts each primary has run, the most first."""
    found = [sum(node.calls().get(name, 0) for name in SCRIPTS) for node in cluster.primaries()]
    return sorted(found, reverse=True)


SCRIPTS = ("eval", "evalsha")


def app_with_session(cluster: RedisCluster, limits: Any, store: Settings) -> TestApp:
    """Return an application whose client has a session, and reset the counts of the nodes."""
    app = make_app(limits, store)
    app.get("/visit")
    app.get("/visit")
    cluster.reset_calls()
    return app


# -- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["redis", *CLUSTERS])
def test_a_counter_is_in_the_slot_of_its_session(request: pytest.FixtureRequest, name: str) -> None:
    """On a single server it has the key of 1.0, byte for byte."""
    settings = store_settings(name, request)
    app = make_app([LIMIT, BY_ADDRESS], settings)
    app.get("/visit"), app.get("/visit")
    session = f"session::{app.cookies['session_id']}"
    address = f"session::@address::{ADDRESS}"
    server = server_keys(name, request)
    if name == "redis":
        assert server == {
            *(session, f"{session}::ratelimit"),
            *(f"{address}::ratelimit", f"{address}::ratelimit::by address"),
        }
    else:
        counter = f"{{{session}}}::ratelimit"
        assert server == {
            *(session, counter),
            *(f"{{{address}}}::ratelimit", f"{{{address}}}::ratelimit::by address"),
        }
        assert slot_of(counter) == slot_of(session)


def server_keys(name: str, request: pytest.FixtureRequest) -> set[str]:
    fixture = {"redis": "redis_session", "redis-cluster": "redis_cluster_session"}
    server = request.getfixturevalue(fixture.get(name, "valkey_cluster_session"))
    if isinstance(server, RedisCluster):
        return keys_of(server)
    return {key.decode() for key in server.command("KEYS", "*")}


def test_names_are_those_of_a_single_server(
    cluster: RedisCluster, store: Settings, redis_server: RedisServer
) -> None:
    names = []
    for url in (cluster.url, redis_server.url):
        app = make_app(
            {**LIMIT, "limit": 99}, token_session({"kvs_kwargs": {"url": url, **PATIENT}})
        )
        for token in TOKENS * 2:
            app.get("/visit", headers={"X-Token": token})
        driver = KVS("redis", {"url": url}, key_prefix="session::")
        names.append(sorted(driver.get_keys()))
        counters = driver.get_keys("*::ratelimit")
        assert len(counters) == len(TOKENS) + 1
        assert len(driver.get_many(counters)) == len(counters)
        driver.flush()
        assert driver.get_keys() == []
    assert names[0] == names[1]
    assert keys_of(cluster) == set()


def token_session(store: Settings) -> Settings:
    return {**store, "kvs": "redis", "session_type": "header", "key_name": "X-Token"}


def test_tokens_of_hostile_clients_are_counted_apart(
    cluster: RedisCluster, store: Settings
) -> None:
    app = make_app(LIMIT, token_session(store))
    for token in TOKENS:  # sessions that the store knows
        app.get(
            "/visit", headers={"X-Token": token}, extra_environ={"REMOTE_ADDR": token_ip(token)}
        )
    for token in TOKENS:
        headers = {"X-Token": token}
        assert statuses(app, 4, headers=headers) == [200, 200, 200, 429], token
    for full_key in keys_of(cluster):
        if "::ratelimit" in full_key and "@address" not in full_key:
            assert full_key.startswith("{")


def token_ip(token: str) -> str:
    return f"198.51.100.{TOKENS.index(token)}"


def test_each_counter_is_in_the_slot_of_its_token(cluster: RedisCluster, store: Settings) -> None:
    app = make_app(LIMIT, token_session(store))
    for token in TOKENS:
        app.get(
            "/visit", headers={"X-Token": token}, extra_environ={"REMOTE_ADDR": token_ip(token)}
        )
        before = keys_of(cluster)
        app.get("/", headers={"X-Token": token})
        [counter] = keys_of(cluster) - before
        assert slot_of(counter) == slot_of(f"session::x-token::{token}")


@pytest.mark.parametrize("token", ["abc", "x{a}y", "z" * 99])
def test_counters_can_be_cleared(store: Settings, token: str) -> None:
    app = make_app(LIMIT, token_session(store))
    headers = {"X-Token": token}
    app.get("/visit", headers=headers, extra_environ={"REMOTE_ADDR": "192.0.2.9"})
    limiter = limiter_of(app.app.registry)
    assert limiter is not None
    assert statuses(app, 3, headers=headers) == [200] * 3
    assert clear(limiter, token) == 1
    assert statuses(app, 4, headers=headers) == [200, 200, 200, 429]
    assert clear(limiter, "192.0.2.9") == 1


# -- round trips -------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [MANY[0], MANY[2], MANY], ids=["fixed", "gcra", "several"])
def test_a_session_and_its_limits_are_one_script(
    cluster: RedisCluster, store: Settings, limits: Any
) -> None:
    app = app_with_session(cluster, limits, store)
    app.get("/")
    assert scripts_of(cluster) == [1, 0, 0]
    assert cluster.calls()["getex"] == 1
    assert app.get("/visit").text == "3"
    assert scripts_of(cluster) == [3, 0, 0]
    assert cluster.calls()["getex"] == 2  # no other call reads the session


def test_all_limits_of_an_address_are_one_script(cluster: RedisCluster, store: Settings) -> None:
    app = make_app([{**limit, "by": "address"} for limit in MANY], store)
    app.get("/")
    cluster.reset_calls()
    app.get("/")
    assert scripts_of(cluster) == [1, 0, 0]


def test_an_unknown_session_takes_a_second_trip(cluster: RedisCluster, store: Settings) -> None:
    app = app_with_session(cluster, MANY, store)
    app.reset()
    app.set_cookie("session_id", "f" * 40)
    app.get("/")  # now all nodes have the script
    cluster.reset_calls()
    app.get("/")
    assert sum(scripts_of(cluster)) == 2


def elsewhere(cluster: RedisCluster, key: str) -> str:
    """Return an address whose counters are on another node than a key."""
    home = cluster.primary_of(key)
    found = (f"192.0.2.{number}" for number in range(1, 255))
    return next(one for one in found if cluster.primary_of(f"session::@address::{one}") != home)


def test_slots_are_asked_at_the_same_time(cluster: RedisCluster, store: Settings) -> None:
    """While the node of the session hangs, that of the address has already counted."""
    app = app_with_session(cluster, [MANY[0], {**MANY[1], "by": "address"}], store)
    session = f"session::{app.cookies['session_id']}"
    address = elsewhere(cluster, session)
    environ = {"REMOTE_ADDR": address}
    app.get("/", extra_environ=environ)  # connects to both nodes
    node = cluster.primary_of(f"session::@address::{address}")
    cluster.reset_calls()
    hung = cluster.primary_of(session)
    found: list[int] = []
    request = threading.Thread(
        target=lambda: found.append(app.get("/", extra_environ=environ).status_int)
    )
    hung.pause()
    try:
        request.start()
        wait_until(lambda: node.calls().get("evalsha"), "the script on the other node")
        assert found == []
    finally:
        hung.resume()
        request.join()
    assert found == [200]


# -- all or none -------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_what_one_slot_has_counted_is_returned_if_another_refuses(
    cluster: RedisCluster, store: Settings, strategy: str
) -> None:
    limits = [{**LIMIT, "limit": 9, "strategy": strategy}, {**BY_ADDRESS, "strategy": strategy}]
    app = app_with_session(cluster, limits, store)
    assert statuses(app, 3) == [200, 429, 429]
    other = {"REMOTE_ADDR": "198.51.100.1"}
    found = [app.get("/", extra_environ=other).headers["RateLimit"] for _ in range(2)]
    # The first visit had no session. The second one and the first of the statuses were counted.
    assert [text.split(";t=")[0] for text in found] == ['"session-600s";r=6', '"session-600s";r=5']


def test_limits_that_only_look_are_told_where_others_refuse(
    cluster: RedisCluster, store: Settings
) -> None:
    failures = {**LIMIT, "count": "failures", "name": "failures"}
    app = app_with_session(cluster, [failures, {**BY_ADDRESS, "limit": 2}], store)
    assert app.get("/", status=429).headers["RateLimit"].startswith('"failures";r=3')


def test_an_unknown_session_is_told_all_limits_when_one_refuses(
    cluster: RedisCluster, store: Settings
) -> None:
    app = make_app([LIMIT, {**BY_ADDRESS, "limit": 1}], store)
    app.set_cookie("session_id", "f" * 40)
    assert statuses(app, 2) == [200, 429]
    assert '"session-600s";r=2' in app.get("/", status=429).headers["RateLimit"]


def test_a_node_without_the_script_counts_once(cluster: RedisCluster, store: Settings) -> None:
    app = app_with_session(cluster, [{**LIMIT, "limit": 9}, BY_ADDRESS], store)
    for node in cluster.primaries():
        node.command("SCRIPT", "FLUSH")
    remaining = app.get("/").headers["RateLimit"]
    assert remaining.startswith('"session-600s";r=7;')
    assert '"by address";r=0;' in remaining


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_charges_in_different_slots(store: Settings, strategy: str) -> None:
    limit = {"limit": 20, "window": 36000, "strategy": strategy, **store}
    app = charging_app([{**limit, "by": "header:X-Key"}, {**limit, "limit": 40, "by": "address"}])

    def charge(cost: int, status: int = 200) -> list[str]:
        response = app.get(f"/charge?cost={cost}", headers={"X-Key": "one"}, status=status)
        return re.findall(r";r=(\d+)", response.headers["RateLimit"])

    assert charge(15) == ["4", "24"]
    assert charge(15, 429) == ["3", "23"]
    assert charge(-10) == ["12", "32"]
    assert charge(11) == ["0", "20"]


_shared: dict[str, Any] = {}
KEYS, ADDRESSES = ("one", "two", "three"), ("192.0.2.1", "192.0.2.2", "192.0.2.3")


def ask_at_random(number: int) -> Counter[tuple[str, str, int]]:
    """Send requests from a forked process; return how often each status came, and for whom."""
    chosen = random.Random(number)
    _shared["barrier"].wait(60)
    found: Counter[tuple[str, str, int]] = Counter()
    for _ in range(30):
        key, address = chosen.choice(KEYS), chosen.choice(ADDRESSES)
        [status] = statuses(
            _shared["app"], 1, headers={"X-Key": key}, extra_environ={"REMOTE_ADDR": address}
        )
        found[key, address, status] += 1
    return found


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_eight_processes_compete_for_limits_in_different_slots(
    store: Settings, strategy: str
) -> None:
    """No limit admits more than it allows, and no refused request has counted in the end."""
    limit = {"limit": 20, "window": 36000, "strategy": strategy, **store}
    limits = [{**limit, "by": "header:X-Key"}, {**limit, "by": "address"}]
    app = make_app(limits)
    context = multiprocessing.get_context("fork")
    _shared.update(app=app, barrier=context.Barrier(8))
    app.get("/", headers={"X-Key": "other"}, extra_environ={"REMOTE_ADDR": "192.0.2.9"})
    with context.Pool(8) as pool:
        found = sum(pool.map(ask_at_random, range(8), chunksize=1), Counter())
    admitted: Counter[str] = Counter()
    for (key, address, status), count in found.items():
        assert status in (200, 429)
        admitted.update({key: count, address: count} if status == 200 else {})
    assert max(admitted.values()) <= 20
    time.sleep(1)  # a process refuses for this long without asking the store
    for key, address in zip(KEYS, ADDRESSES, strict=True):
        response = app.get(
            "/", headers={"X-Key": key}, extra_environ={"REMOTE_ADDR": address}, status="*"
        )
        passed = response.status_int == 200
        left = [int(text) for text in re.findall(r";r=(\d+)", response.headers["RateLimit"])]
        assert left == [20 - admitted[key] - passed, 20 - admitted[address] - passed]


# -- a node that is lost -----------------------------------------------------------------------


@pytest.fixture
def frail(own_redis_cluster: Callable[..., RedisCluster]) -> RedisCluster:
    """A cluster whose other nodes go on if one is lost."""
    return own_redis_cluster("--cluster-require-full-coverage", "no", replicas=0)


def test_the_limits_of_other_nodes_hold_while_one_is_lost(frail: RedisCluster) -> None:
    store = {"kvs": "redis", "kvs_kwargs": {"url": frail.url}}
    app = app_with_session(frail, [{**LIMIT, "limit": 6}, {**BY_ADDRESS, "limit": 99}], store)
    environ = {"REMOTE_ADDR": elsewhere(frail, f"session::{app.cookies['session_id']}")}
    assert statuses(app, 1, extra_environ=environ) == [200]
    frail.primary_of(f"session::@address::{environ['REMOTE_ADDR']}").kill()
    found = Counter(statuses(app, 9, extra_environ=environ))
    assert found == {200: 4, 429: 5}


def test_on_error_deny_holds_where_a_node_is_lost(frail: RedisCluster) -> None:
    store = {"kvs": "redis", "kvs_kwargs": {"url": frail.url}}
    limits = [{**LIMIT, "on_error": "deny"}, {**BY_ADDRESS, "on_error": "deny"}]
    app = app_with_session(frail, limits, store)
    environ = {"REMOTE_ADDR": elsewhere(frail, f"session::{app.cookies['session_id']}")}
    frail.primary_of(f"session::@address::{environ['REMOTE_ADDR']}").kill()
    assert statuses(app, 1, extra_environ=environ) == [503]
