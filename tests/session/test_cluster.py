"""Sessions on a cluster: in how many round trips, and on which nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyramid_kvs.session import SessionFactory, end_sessions, list_sessions
from pyramid_kvs.session.users.shards import SHARDS
from tests.servers import RedisCluster, RedisServer
from tests.session.apps import COOKIE, Store, Visit, cookie_of, do, new_session
from tests.session.conftest import make_store
from tests.stores import CLUSTERS, server_of, timeouts

USERS = 20


@pytest.fixture(params=CLUSTERS)
def cluster(request: pytest.FixtureRequest) -> RedisCluster:
    found: RedisCluster = server_of(request.param, request)
    return found


@pytest.fixture
def store(cluster: RedisCluster) -> Store:
    return Store("redis", {"url": cluster.url, **timeouts("redis-cluster")})


def log_in(factory: SessionFactory) -> str:
    visit = Visit(factory)
    visit.session["user"] = "u"
    visit.session.bind("u")
    return cookie_of(visit.end()) or ""


def count_trips(factory: SessionFactory, action: Callable[[], object]) -> int:
    """Return how often a driver of redis waits for replies, of one node or of several at once."""
    driver: Any = factory.driver
    trips = []

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            trips.append(call)
            return call(*args, **kwargs)

        return counting

    originals = driver._call, driver._call_many
    driver._call, driver._call_many = map(counted, originals)
    action()
    driver._call, driver._call_many = originals
    return len(trips)


def test_a_user_takes_as_many_trips_as_on_a_single_server(
    store: Store, redis_server: RedisServer
) -> None:
    """The sessions of a user are on all nodes, and the list of them has 32 parts."""
    found = []
    for one in (store, Store("redis", {"url": redis_server.url})):
        factory = one.factory()
        ids = [log_in(factory) for _ in range(USERS)]
        request = Visit(factory, ids[0]).request
        request.session = factory(request)
        assert len(request.session) == 1
        listed = count_trips(factory, lambda: list_sessions(request, "u"))  # noqa: B023
        ended = count_trips(factory, lambda: end_sessions(request, "u", True))  # noqa: B023
        entered = count_trips(factory, lambda: log_in(factory))  # noqa: B023
        assert len(list_sessions(request, "u")) == 2
        found.append((entered, listed, ended))
    assert found == [(3, 3, 5)] * 2


def test_listing_asks_for_each_part_once(cluster: RedisCluster, store: Store) -> None:
    factory = store.factory()
    ids = [log_in(factory) for _ in range(USERS)]
    request = Visit(factory, ids[0]).request
    request.session = factory(request)
    assert len(request.session) == 1
    cluster.reset_calls()
    assert len(list_sessions(request, "u")) == USERS
    calls = cluster.calls()
    assert calls.get("get", 0) + calls.get("mget", 0) == SHARDS + USERS
    assert all(node.calls().get("get") for node in cluster.primaries())


def test_a_change_takes_two_commands_on_one_node(cluster: RedisCluster, store: Store) -> None:
    app = store.app()
    app.set_cookie(COOKIE, new_session(store.factory(), a=1))
    do(app, ["get", "a"], ["set", "a", 2])
    cluster.reset_calls()
    do(app, ["get", "a"], ["set", "a", 3])
    calls = [node.calls() for node in cluster.primaries()]
    [asked] = [found for found in calls if "evalsha" in found]
    assert (asked["getex"], asked["evalsha"]) == (1, 1)
    assert sum(found.get("getex", 0) for found in calls) == 1


@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize("hash_keys", ["accept", "migrate"])
def test_both_keys_of_an_id_are_found_on_their_nodes(
    request: pytest.FixtureRequest, name: str, hash_keys: str
) -> None:
    """The id and its hash are in different slots."""
    store = make_store(name, request)
    ids = [new_session(store.factory(), a=n) for n in range(USERS)]
    factory = store.factory(hash_keys=hash_keys)
    for number, session_id in enumerate(ids):
        visit = Visit(factory, session_id)
        assert visit.session["a"] == number
        visit.session["b"] = number
        visit.end()
        assert store.has_session(session_id) == (hash_keys == "accept")
        assert Visit(factory, session_id).session["b"] == number


@pytest.mark.parametrize("token", ["{", "}", "{}", "}{", "{a}", "x{a}y", "é{é}"])
def test_tokens_with_braces(store: Store, token: str) -> None:
    factory = store.factory(session_type="header", key_name="X-T")
    other = Visit(factory, X_T="a")
    other.session["v"] = "other"
    other.end()
    visit = Visit(factory, X_T=token)
    assert "v" not in visit.session
    visit.session["v"] = token
    visit.end()
    assert Visit(factory, X_T=token).session["v"] == token
    assert Visit(factory, X_T="a").session["v"] == "other"
