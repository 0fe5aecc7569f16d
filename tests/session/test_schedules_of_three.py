"""Three requests in every order of their calls of a driver: no logout is undone."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable

import pytest

from pyramid_kvs.session import SessionFactory
from tests.session.apps import Store, Visit
from tests.session.schedules import Switch, every_order

OLD = "1" * 40


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = itertools.count()
    monkeypatch.setattr(
        "pyramid_kvs.session.carriers.cookies.random_id", lambda: f"{next(ids):040x}"
    )
    monkeypatch.setattr("pyramid_kvs.kvs.stored.time.sleep", lambda seconds: None)


def log_out_after_a_save(visit: Visit) -> None:
    visit.session["saved"] = 1
    visit.session.save()
    visit.session.invalidate()


def renew(visit: Visit) -> None:
    visit.session.regenerate_id()


def read(visit: Visit) -> None:
    visit.session.get("a")


class Migration:
    """A worker that moves a session to its hashed key, while three requests use it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._factory: SessionFactory = store.factory(hash_keys="migrate")
        Switch().watch(self._factory.driver)
        self._record = json.dumps({"a": 1, "__kvs_created": time.time() - 5})

    def start(self, *views: Callable[[Visit], None]) -> list[Callable[[], None]]:
        self._store.driver.delete_many(self._store.driver.get_keys())
        self._store.driver.raw_set(OLD, self._record, 300)
        return [lambda view=view: self._run(view) for view in views]

    def _run(self, view: Callable[[Visit], None]) -> None:
        visit = Visit(self._factory, OLD)
        view(visit)
        visit.end()

    def sessions(self) -> list[str]:
        return [key for key in self._store.driver.get_keys() if self._store.has_session(key)]


def test_a_session_that_moves_twice_does_not_escape_its_logout(memory: Store) -> None:
    migration = Migration(memory)
    for order in every_order(lambda: migration.start(log_out_after_a_save, renew, read)):
        assert migration.sessions() == [], order
