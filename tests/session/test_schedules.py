"""Two requests in every order of their calls of a driver: no logout is undone, nothing is lost."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import pytest
from greenlet import getcurrent

from pyramid_kvs.drivers.memory import MemoryKVS
from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.kvs import KVS, names
from pyramid_kvs.session import SessionFactory, end_sessions, list_sessions
from pyramid_kvs.session.keys import SessionId, hashed_key, plain_key
from pyramid_kvs.session.users import UserEpochs, user_digest
from tests.session.apps import Visit, cookie_of
from tests.session.conftest import make_store
from tests.session.schedules import Switch, every_order
from tests.stores import CLUSTERS

HEADER = "X-T"
OLD, NEW = "1" * 40, "2" * 40
USER = "u"
#: ``hash_keys`` of the worker of each request, and whether the session is stored under a hash.
STEPS = {
    "false": (False, False, False),
    "accept": ("accept", "accept", False),
    "migrate": ("migrate", "migrate", False),
    "true": (True, True, True),
    "accept-migrate": ("accept", "migrate", False),
}


# -- what a request does ---------------------------------------------------------------------


def change(visit: Visit, name: str) -> None:
    visit.session[name] = 1


def invalidate_after_reading(visit: Visit, name: str) -> None:
    visit.session.get("a")
    visit.session.invalidate()


def invalidate_after_a_save(visit: Visit, name: str) -> None:
    renew(visit, name)
    visit.session[name] = 1
    visit.session.save()
    visit.session.invalidate()


def begin_again(visit: Visit, name: str) -> None:
    visit.session.invalidate()
    visit.session["again"] = 1


def renew(visit: Visit, name: str) -> None:
    if visit.session.key_name == HEADER:
        visit.session.update_session_token(HEADER, NEW)
    else:
        visit.session.regenerate_id()


def log_in(visit: Visit, name: str) -> None:
    renew(visit, name)
    visit.session[name] = 1
    visit.session.bind(USER)


def save_twice(visit: Visit, name: str) -> None:
    visit.session[name] = [0]
    visit.session.save()
    visit.session[name].append(1)


OPERATIONS: dict[str, Callable[[Visit, str], object]] = {
    "read": lambda visit, name: visit.session.get("a"),
    "change": change,
    "flash": lambda visit, name: visit.session.flash(name),
    "save_twice": save_twice,
    "invalidate": lambda visit, name: visit.session.invalidate(),
    "invalidate_after_reading": invalidate_after_reading,
    "invalidate_after_a_save": invalidate_after_a_save,
    "begin_again": begin_again,
    "clear": lambda visit, name: visit.session.clear(),
    "renew": renew,
    "bind": lambda visit, name: visit.session.bind(USER),
    "log_in": log_in,
    "end_all": lambda visit, name: end_sessions(visit.request, USER),
    "end_others": lambda visit, name: end_sessions(visit.request, USER, except_current=True),
}
LOGOUTS = {
    "invalidate", "invalidate_after_reading", "invalidate_after_a_save", "begin_again", "end_all"
}  # fmt: skip
ENDS = {"end_all", "end_others"}
BINDING = {"bind", "log_in"}
KEPT = {
    "change": lambda record, name: record.get(name) == 1,
    "log_in": lambda record, name: record.get(name) == 1,
    "flash": lambda record, name: name in record.get("_f_", ()),
    "save_twice": lambda record, name: record.get(name) == [0, 1],
}


class Pair(NamedTuple):
    """What two requests do with one session."""

    first: str
    second: str
    #: Whether the session is bound to the user before.
    is_bound: bool

    def has(self, operations: Collection[str]) -> bool:
        return self.first in operations or self.second in operations


# -- a run -----------------------------------------------------------------------------------


class Asked:
    """A request of a run: what it does, and what came of it."""

    def __init__(
        self, factory: SessionFactory, hash_keys: Any, operation: str, name: str, world: World
    ) -> None:
        self.hash_keys = hash_keys
        self.operation, self.name, self.world = operation, name, world
        headers = {HEADER: OLD} if world.is_header else {}
        self.visit = Visit(factory, None if headers else OLD, **headers)
        self.visit.request.session = self.visit.session
        self.counter = itertools.count()
        self.cookie: str | None = None
        self.lines: list[str] = []
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.world.by_greenlet[getcurrent()] = self
        try:
            OPERATIONS[self.operation](self.visit, self.name)
            self.cookie = cookie_of(self.visit.end())
        except Exception as error:
            self.error = error
        self.world.done.append(self)

    def is_unaware(self) -> bool:
        """Return whether the request cannot know that the other one has changed the id.

        It has only read the session, or had saved it before.
        """
        is_reader = {"read", "end_others"} if self.world.pair.is_bound else {"read", *ENDS}
        if self.operation in is_reader:
            return True
        # A worker that moves sessions saves them first, and then leaves a marker at the old key.
        return self.hash_keys == "migrate" and self.operation in (*KEPT, "bind")


class Lines(logging.Handler):
    """Gives the lines of the log to the requests that wrote them."""

    world: World

    def emit(self, record: logging.LogRecord) -> None:
        asked = self.world.by_greenlet.get(getcurrent())
        if asked is not None:
            asked.lines.append(record.getMessage())


LINES = Lines()


def next_id() -> str:
    """Return the next id of the request that runs, the same ones in each run."""
    asked = LINES.world.by_greenlet[getcurrent()]
    return made_id(asked.name, next(asked.counter))


def made_id(name: str, number: int) -> str:
    return hashlib.sha1(f"{name}{number}".encode()).hexdigest()


class World:
    """A store with two workers, and the two requests of one run.

    :param step: a key of ``STEPS``.
    """

    def __init__(self, step: str, is_header: bool, kvs: str, kwargs: dict[str, Any]) -> None:
        *self.steps, is_hashed = STEPS[step]
        self.is_header = is_header
        prefix = f"schedules{uuid.uuid4().hex}::"
        self.options: dict[str, Any] = {"kvs": kvs, "kvs_kwargs": kwargs, "key_prefix": prefix}
        if is_header:
            self.options |= {"session_type": "header", "key_name": HEADER}
        self.driver = KVS(kvs, kwargs, prefix, None)
        self.origin = self.factory(is_hashed)
        self.factories = [self.factory(hash_keys) for hash_keys in self.steps]
        switch = Switch()
        for factory in self.factories:
            switch.watch(factory.driver)
            store = factory._backend.store
            store._ended._interval = store._moved._interval = 0.0
        self.has_epochs = isinstance(self.origin._backend.users, UserEpochs)
        self.prepared = {is_bound: self._prepared(is_bound) for is_bound in (True, False)}

    def factory(self, hash_keys: Any) -> SessionFactory:
        return SessionFactory({**self.options, "hash_keys": hash_keys})

    def _prepared(self, is_bound: bool) -> dict[str, Any]:
        """Store the session; return everything that the store has then."""
        self._clean()
        [key] = self.origin._backend.keys_of(self.session_id(OLD))
        record = {"a": 1, "__kvs_created": time.time() - 5}
        self.driver.raw_set(key, json.dumps(record), 300)
        if is_bound:
            visit = self.visit(OLD, self.origin)
            visit.session.bind(USER)
            visit.end()
        return {key: self.driver.raw_get(key) for key in self.keys()}

    def _clean(self) -> None:
        for key in self.keys():
            self.driver.raw_delete(key)

    def keys(self) -> list[str]:
        """Return the keys in the store, or those of all ids if the driver cannot list them."""
        try:
            return self.driver.get_keys()
        except KVSNotSupported:
            ids = [OLD, NEW, *(made_id(name, n) for name in ("one", "two") for n in range(3))]
            known = [self.session_id(value) for value in ids]
            possible = [form(found) for found in known for form in (plain_key, hashed_key)]
            possible.append("__kvs_user::" + user_digest(USER))
            return [key for key in possible if self.driver.raw_get(key) is not None]

    def start(self, pair: Pair) -> list[Callable[[], None]]:
        """Prepare a run; return its requests."""
        self._clean()
        for key, data in self.prepared[pair.is_bound].items():
            self.driver.raw_set(key, data, 300)
        self.pair = pair
        self.by_greenlet: dict[Any, Asked] = {}
        self.done: list[Asked] = []
        LINES.world = self
        operations = zip(self.factories, self.steps, pair[:2], ("one", "two"), strict=True)
        return [Asked(*parts, self) for parts in operations]

    # -- afterwards -----------------------------------------------------------------------

    def visit(self, value: str, factory: SessionFactory) -> Visit:
        headers = {HEADER: value} if self.is_header else {}
        visit = Visit(factory, None if headers else value, **headers)
        visit.request.session = visit.session
        return visit

    def session_id(self, value: str) -> SessionId:
        return SessionId(value, f"{HEADER.lower()}::" if self.is_header else "")

    def ids(self) -> list[str]:
        """Return every id that a client may know now."""
        sent = [asked.cookie for asked in self.done if asked.cookie]
        return list(dict.fromkeys([OLD, NEW, *sent]))

    def opened(self, value: str) -> dict[str, Any] | None:
        """Return the session that an id opens, in each worker."""
        for factory in self.factories:
            session = self.visit(value, factory).session
            if session.get("a") == 1:
                return dict(session)
        return None

    def check(self) -> None:
        assert [asked.error for asked in self.done] == [None, None]
        self.check_markers()
        living = {value: self.opened(value) for value in self.ids()}
        living = {value: record for value, record in living.items() if record is not None}
        self.check_markers()
        if self.is_ended() or (not living and self.may_be_ended()):
            assert living == {}
            # An epoch ends sessions without removing them.
            assert self.records() == {} or (self.has_epochs and self.pair.has(ENDS))
            return
        if self.pair.has({"clear"}):
            self.check_clear(living)
            return
        assert len(living) == 1
        [(value, record)] = living.items()
        assert len(self.records()) == 1
        self.check_changes(record)
        self.check_cookie(value)
        self.check_user(value)

    def is_ended(self) -> bool:
        """Return whether a request has ended the session, whatever the other one did."""
        logouts = LOGOUTS if self.pair.is_bound else LOGOUTS - {"end_all"}
        return self.pair.has(logouts)

    def may_be_ended(self) -> bool:
        """Return whether a request has ended the session if it was bound in time."""
        if not self.pair.has(ENDS):
            return False
        # A session that gets a new id at the same time cannot be given the new epoch.
        is_lost = self.has_epochs and (not self.pair.is_bound or self.pair.has({"renew", "log_in"}))
        return self.pair.has({"end_all"}) or is_lost

    def records(self) -> dict[str, Any]:
        """Return the records of the session in the store, without markers."""
        found = {key: json.loads(self.driver.raw_get(key)) for key in self.keys()}
        return {
            key: record
            for key, record in found.items()
            if isinstance(record, dict) and record.get("a") == 1
        }

    def check_markers(self) -> None:
        """No marker is valid for longer than ten seconds."""
        for key in self.keys():
            if "__kvs_moved" in str(self.driver.raw_get(key)):
                with contextlib.suppress(KVSNotSupported):
                    assert 0 < self.driver.raw_ttl(key) <= 10

    def check_clear(self, living: dict[str, Any]) -> None:
        """The keys are gone, or a line says that clearing them had no effect."""
        for asked in self.done:
            if asked.operation == "clear" and living:
                assert asked.lines
        assert len(living) <= 1
        for value, record in living.items():
            self.check_changes(record)
            self.check_cookie(value)

    def check_changes(self, record: dict[str, Any]) -> None:
        for asked in self.done:
            if asked.operation in KEPT and not asked.lines:
                assert KEPT[asked.operation](record, asked.name), asked.operation

    def check_cookie(self, value: str) -> None:
        """The browser has the id of the session."""
        if self.is_header:
            return
        jar = OLD
        for asked in self.done:
            if asked.cookie is not None and not (asked.cookie == OLD and asked.is_unaware()):
                jar = asked.cookie
        assert jar == value

    def check_user(self, value: str) -> None:
        """A session that is bound is in the list of its user."""
        bound = [asked for asked in self.done if asked.operation in BINDING and not asked.lines]
        if (self.pair.is_bound or bound) and not self.has_epochs:
            assert len(list_sessions(self.visit(value, self.factories[1]).request, USER)) == 1


def pairs(step: str, chosen: Collection[str] = tuple(OPERATIONS)) -> Iterator[Pair]:
    """Return all pairs; in both orders if the requests have different workers."""
    one, other, _ = STEPS[step]
    operations = (
        itertools.combinations_with_replacement(chosen, 2)
        if one == other
        else itertools.product(chosen, repeat=2)
    )
    for first, second in operations:
        for is_bound in (True, False):
            pair = Pair(first, second, is_bound)
            # Binding a session that is bound to the user changes nothing.
            if not pair.has({"bind"}) if is_bound else pair.has(BINDING):
                yield pair


def run_all(world: World, chosen: Iterable[Pair]) -> int:
    """Run pairs in every order; return the number of runs."""
    count = 0
    for pair in chosen:
        for order in every_order(functools.partial(world.start, pair)):
            count += 1
            try:
                world.check()
            except AssertionError as error:
                raise AssertionError(f"{pair}, in the order {order}") from error
    return count


# -- tests -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the log to the requests, let no pause take time, and repeat ids in each run."""
    monkeypatch.setattr("pyramid_kvs.session.carriers.cookies.random_id", next_id)
    # The index of a user has as many parts as there are sessions, to save time.
    monkeypatch.setattr("pyramid_kvs.session.users.shards.SHARDS", 2)
    log = logging.getLogger("pyramid_kvs.session")
    log.addHandler(LINES)
    monkeypatch.setattr(log, "propagate", False)
    monkeypatch.setattr("pyramid_kvs.kvs.stored.time.sleep", lambda seconds: None)
    yield
    log.removeHandler(LINES)


@pytest.mark.parametrize("is_header", [False, True], ids=["cookie", "header"])
@pytest.mark.parametrize("step", STEPS)
def test_all_pairs_in_every_order(step: str, is_header: bool) -> None:
    world = World(step, is_header, "memory", {"name": uuid.uuid4().hex})
    count = run_all(world, pairs(step))
    print(f"\n{step}, {'header' if is_header else 'cookie'}: {count} schedules")


class UnlistedKVS(MemoryKVS):
    """A driver that cannot list its keys, so that each user has an epoch."""

    get_keys = KVS.get_keys


@pytest.mark.parametrize("is_header", [False, True], ids=["cookie", "header"])
@pytest.mark.parametrize("step", STEPS)
def test_pairs_with_epochs(step: str, is_header: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names._registered, "unlisted", UnlistedKVS)
    world = World(step, is_header, "unlisted", {"name": uuid.uuid4().hex})
    chosen = [pair for pair in pairs(step) if pair.has({*ENDS, *BINDING})]
    count = run_all(world, chosen)
    print(f"\nepochs, {step}, {'header' if is_header else 'cookie'}: {count} schedules")


#: Each run takes a hundred round trips, most of them in the checks.
SELECTED = ["change", "invalidate_after_reading", "renew"]


@pytest.mark.parametrize("name", ["redis", "memcache"])
@pytest.mark.parametrize("step", ["false", "migrate"])
def test_selected_pairs_on_servers(step: str, name: str, request: pytest.FixtureRequest) -> None:
    run_selected(name, step, request)


@pytest.mark.parametrize("name", CLUSTERS)
def test_selected_pairs_on_a_cluster(name: str, request: pytest.FixtureRequest) -> None:
    """The id and its hash are in different slots, and mostly on different nodes."""
    run_selected(name, "migrate", request)


def run_selected(name: str, step: str, request: pytest.FixtureRequest) -> None:
    store = make_store(name, request)
    world = World(step, False, store.kvs, store.options["kvs_kwargs"])
    count = run_all(world, pairs(step, SELECTED))
    print(f"\n{name}, {step}: {count} schedules")
