"""Sessions under a hash of the id, and the migration to it without a logout."""

from __future__ import annotations

import hashlib
import itertools
import threading
from typing import Any

import pytest

from tests.session.apps import COOKIE, Store, Visit, cookie_of, do, new_session, overtake

STEPS = [False, "accept", "migrate", True]


def sha256(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def test_only_the_hash_is_stored(store: Store) -> None:
    factory = store.factory(hash_keys=True)
    session_id = new_session(factory, a=1)
    assert store.record(sha256(session_id))["a"] == 1
    assert store.data(session_id) is None
    assert Visit(factory, session_id).session["a"] == 1
    assert factory.session_key(Visit(factory, session_id).request) == sha256(session_id)


def test_stored_key_is_not_an_id(memory: Store) -> None:
    factory = memory.factory(hash_keys=True)
    stored = sha256(new_session(factory, a=1))
    assert Visit(factory, stored).session.new
    assert Visit(factory, stored[:40]).session.new


def test_token_is_hashed_too(store: Store) -> None:
    factory = store.factory(hash_keys=True, session_type="header", key_name="X-T")
    visit = Visit(factory, X_T="secret")
    visit.session["a"] = 1
    visit.end()
    assert store.record(f"x-t::sha256:{sha256('secret')}")["a"] == 1
    assert Visit(factory, X_T="secret").session["a"] == 1


@pytest.mark.parametrize("hash_keys", STEPS, ids=str)
def test_stored_key_is_not_a_token(memory: Store, hash_keys: Any) -> None:
    stored = f"sha256:{sha256('secret')}"
    memory.put(f"x-t::{stored}", {"a": 1})
    factory = memory.factory(hash_keys=hash_keys, session_type="header", key_name="X-T")
    assert Visit(factory, X_T=stored).session.new


@pytest.mark.parametrize(("before", "after"), list(itertools.pairwise(STEPS)), ids=str)
def test_each_step_reads_both(store: Store, before: Any, after: Any) -> None:
    """During a rolling restart, workers of two steps serve the same sessions."""
    old, new = store.factory(hash_keys=before), store.factory(hash_keys=after)
    if after is True:  # all sessions have moved before this step
        before = "migrate"
    for first, second in ((old, new), (new, old)):
        session_id = new_session(first, a=1)
        for factory in (second, first, second):
            visit = Visit(factory, session_id)
            assert visit.session["a"] == 1
            visit.session["n"] = visit.session.get("n", 0) + 1
            assert cookie_of(visit.end()) == session_id
        assert Visit(first, session_id).session["n"] == 3


def test_accept_leaves_sessions_where_they_are(store: Store) -> None:
    factory = store.factory(hash_keys="accept")
    plain = new_session(store.factory(), a=1)
    hashed = new_session(store.factory(hash_keys=True), a=1)
    for session_id in (plain, hashed):
        visit = Visit(factory, session_id)
        visit.session["b"] = 2
        visit.end()
    assert store.record(plain)["b"] == 2
    assert store.record(sha256(hashed))["b"] == 2


def test_migrate_moves_a_session_that_is_read(store: Store) -> None:
    session_id = new_session(store.factory(), a=1)
    factory = store.factory(hash_keys="migrate")
    visit = Visit(factory, session_id)
    assert visit.session["a"] == 1
    assert cookie_of(visit.end()) == session_id
    assert not store.has_session(session_id)
    assert store.record(sha256(session_id))["a"] == 1
    assert Visit(store.factory(hash_keys=True), session_id).session["a"] == 1


@pytest.mark.parametrize("reads", [True, False], ids=["read", "saved"])
def test_migrate_moves_an_empty_record(store: Store, reads: bool) -> None:
    """A logout of 1.0 has left one."""
    session_id = new_session(store.factory(), a=1)
    store.factory().driver.raw_set(session_id, "{}", 600)
    visit = Visit(store.factory(hash_keys="migrate"), session_id)
    assert dict(visit.session) == {}
    if not reads:
        assert visit.session.save()
    visit.end()
    assert not store.has_session(session_id)
    assert set(store.record(sha256(session_id))) == {"__kvs_created"}


def test_two_requests_that_move_one_session(store: Store) -> None:
    session_id = new_session(store.factory(), a=1)
    factory = store.factory(hash_keys="migrate")
    one, two, three = (Visit(factory, session_id) for _ in range(3))
    one.session["one"] = 1
    two.session.get("a")
    three.session["three"] = 3
    for visit in (one, two, three):
        assert cookie_of(visit.end()) == session_id
    assert dict(Visit(factory, session_id).session) == {"a": 1, "one": 1, "three": 3}
    assert not store.has_session(session_id)


def test_old_worker_changes_a_session_while_it_is_moved(store: Store) -> None:
    session_id = new_session(store.factory(), a=1)
    moving = Visit(store.factory(hash_keys="migrate"), session_id)
    moving.session["new"] = 1
    old = Visit(store.factory(), session_id)
    old.session["old"] = 1
    old.end()
    moving.end()
    factory = store.factory(hash_keys=True)
    assert dict(Visit(factory, session_id).session) == {"a": 1, "old": 1, "new": 1}
    assert not store.has_session(session_id)


def test_session_moved_between_two_reads(store: Store) -> None:
    session_id = new_session(store.factory(), a=1)
    factory = store.factory(hash_keys="migrate")

    def move() -> None:
        other = Visit(store.factory(hash_keys="migrate"), session_id)
        other.session["b"] = 2
        other.end()

    overtake(factory.driver, "raw_load", move, unless=sha256(session_id))
    assert dict(Visit(factory, session_id).session) == {"a": 1, "b": 2}


def test_logout_while_a_session_is_moved(store: Store) -> None:
    session_id = new_session(store.factory(), a=1)
    factory = store.factory(hash_keys="migrate")
    moving, ending = Visit(factory, session_id), Visit(factory, session_id)
    moving.session["late"] = 1
    ending.session.invalidate()
    ending.end()
    moving.end()
    assert store.data(session_id) is None
    assert store.data(sha256(session_id)) is None


def test_a_token_that_begins_again_while_its_session_is_moved(store: Store) -> None:
    options: dict[str, Any] = {"session_type": "header", "key_name": "X-T"}
    first = Visit(store.factory(**options), X_T="token")
    first.session["a"] = 1
    first.end()
    factory = store.factory(hash_keys="migrate", **options)
    moving, ending = Visit(factory, X_T="token"), Visit(factory, X_T="token")
    moving.session["late"] = 1
    ending.session.invalidate()
    ending.session["again"] = 1
    ending.end()
    moving.end()
    assert dict(Visit(factory, X_T="token").session) == {"again": 1}


def test_the_copy_of_a_session_that_got_another_id_is_not_opened(memory: Store) -> None:
    """A slower request leaves a copy at the other key until it notices the marker."""
    session_id = new_session(memory.factory(), a=1)
    copied = memory.record(session_id)
    app = memory.app(hash_keys="accept")
    app.set_cookie(COOKIE, session_id)
    do(app, ["regenerate"])
    memory.put(sha256(session_id), copied)
    assert dict(Visit(memory.factory(hash_keys="accept"), session_id).session) == {}


@pytest.mark.parametrize("hash_keys", STEPS, ids=str)
def test_logout_and_regeneration_in_each_step(store: Store, hash_keys: Any) -> None:
    origin = store.factory(hash_keys=hash_keys is True)
    app, session_id = store.app(hash_keys=hash_keys), new_session(origin, a=1)
    app.set_cookie(COOKIE, session_id)
    do(app, ["regenerate"])
    assert do(app, ["all"]) == [{"a": 1}]
    assert not store.has_session(session_id)
    assert not store.has_session(sha256(session_id))
    new_id = app.cookies[COOKIE]
    do(app, ["invalidate"])
    assert store.data(new_id) is store.data(sha256(new_id)) is None


def test_many_requests_at_once_move_one_session(store: Store) -> None:
    factory = store.factory(hash_keys="migrate")
    for _ in range(5):
        session_id = new_session(store.factory(), a=1)
        barrier = threading.Barrier(6)

        def visit(worker: int, session_id: str = session_id, barrier: Any = barrier) -> None:
            barrier.wait(60)
            visit = Visit(factory, session_id)
            if worker % 2:
                visit.session[str(worker)] = worker
            else:
                visit.session.get("a")
            visit.end()

        threads = [threading.Thread(target=visit, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert dict(Visit(factory, session_id).session) == {"a": 1, "1": 1, "3": 3, "5": 5}
