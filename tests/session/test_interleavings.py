"""Random interleavings of two requests of one browser, against a model."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyramid_kvs.session import SessionFactory
from tests.servers import RedisServer
from tests.session.apps import Store, Visit, cookie_of, memory_options

KEYS = ["a", "b", "list"]
Step = tuple[int, str, str]


class Request:
    """A request in the model, with the real one."""

    def __init__(self, visit: Visit, session_id: str | None, record: dict[str, Any] | None) -> None:
        self.visit = visit
        self.session_id = session_id
        self.base = record
        self.view = copied(record or {})
        self.touched: set[str] = set()
        self.popped = False
        self.regenerated = False
        self.invalidated = False
        #: Whether another request had changed the id before this one read the session.
        self.is_away = False


def copied(record: dict[str, Any]) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, list) else v for key, v in record.items()}


def both_lists(base: Any, mine: Any, theirs: Any) -> Any:
    """Return what both requests appended to a list; else the value of the later save."""
    if not isinstance(mine, list) or not isinstance(theirs, list):
        return mine
    start = base or []
    count = len(start)
    only_appended = mine[:count] == theirs[:count] == start
    return theirs + mine[count:] if only_appended else mine


class Browser:
    """Runs steps in reality and in the model. Both must agree after each response."""

    def __init__(self, factory: SessionFactory) -> None:
        self.factory = factory
        self.values = itertools.count()
        self.cookie: str | None = None
        self.records: dict[str, dict[str, Any]] = {}
        self.open: dict[int, Request] = {}
        self.ids: set[str] = set()
        #: Ids that have become others.
        self.moved: dict[str, str] = {}

    def step(self, slot: int, operation: str, key: str) -> None:
        if slot not in self.open:
            visit = Visit(self.factory, self.cookie)
            visit.session.get("")
            self.open[slot] = self.read(visit)
        getattr(self, operation)(self.open[slot], key)
        if operation == "end":
            del self.open[slot]

    def read(self, visit: Visit) -> Request:
        known = self.records.get(self.cookie) if self.cookie else None
        if known is not None:
            return Request(visit, self.cookie, copied(known))
        is_away = self.cookie in self.moved
        request = Request(visit, self.cookie if is_away else None, None)
        request.is_away = is_away
        return request

    def set(self, request: Request, key: str) -> None:
        value = [next(self.values)] if key == "list" else next(self.values)
        request.visit.session[key] = value
        request.view[key] = copied({"": value})[""]
        request.touched.add(key)

    def delete(self, request: Request, key: str) -> None:
        request.visit.session.pop(key, None)
        if request.view.pop(key, None) is not None:
            request.touched.add(key)

    def mutate(self, request: Request, key: str) -> None:
        if "list" in request.view:
            value = next(self.values)
            request.visit.session["list"].append(value)
            request.view["list"].append(value)
            request.touched.add("list")

    def flash(self, request: Request, key: str) -> None:
        message = next(self.values)
        request.visit.session.flash(message)
        request.view.setdefault("_f_", []).append(message)
        request.touched.add("_f_")

    def pop_flash(self, request: Request, key: str) -> None:
        popped = request.visit.session.pop_flash()
        assert popped == request.view.pop("_f_", [])
        if popped:
            request.touched.add("_f_")
            request.popped = True

    def invalidate(self, request: Request, key: str) -> None:
        request.visit.session.invalidate()
        session_id = ended = request.session_id
        while ended is not None:
            self.records.pop(ended, None)
            ended = self.moved.pop(ended, None)
        request.__init__(request.visit, None, None)
        request.invalidated = request.invalidated or session_id is not None

    def regenerate(self, request: Request, key: str) -> None:
        request.visit.session.regenerate_id()
        request.regenerated = request.session_id is not None and not request.is_away

    def end(self, request: Request, key: str) -> None:
        sent = cookie_of(request.visit.end())
        if sent:
            self.ids.add(sent)
        self.save(request, sent)
        if sent is not None:
            self.cookie = sent or None
        self.compare()

    def save(self, request: Request, sent: str | None) -> None:
        if request.is_away:
            assert sent is None
            return
        if request.view == (request.base or {}) and not request.regenerated:
            return
        if request.session_id is None:
            record = request.view
        else:
            theirs = self.records.pop(request.session_id, None)
            if theirs is None:
                assert sent is None
                return
            record = self.merged(request, theirs)
        assert sent or (request.session_id is None and not record)
        if request.session_id is not None:
            assert (sent == request.session_id) is not request.regenerated
        if sent:
            self.records[sent] = record
        if sent and request.regenerated:
            self.moved[request.session_id] = sent

    def merged(self, request: Request, theirs: dict[str, Any]) -> dict[str, Any]:
        record = copied(theirs)
        base_messages = (request.base or {}).get("_f_", [])
        for key in request.touched - {"_f_"}:
            there = record.pop(key, None)
            if key in request.view:
                record[key] = both_lists((request.base or {}).get(key), request.view[key], there)
        mine = request.view.get("_f_", [])
        seen = base_messages if request.popped else []
        pushed = mine if request.popped else mine[len(base_messages) :]
        messages = [m for m in record.pop("_f_", []) if m not in seen] + pushed
        if messages:
            record["_f_"] = messages
        return record

    def compare(self) -> None:
        for session_id in self.ids:
            found = Visit(self.factory, session_id).session
            assert dict(found) == self.records.get(session_id, {})


def run(factory: SessionFactory, steps: list[Step]) -> None:
    browser = Browser(factory)
    for step in [(0, "set", "a"), (0, "set", "list"), (0, "end", ""), *steps]:
        browser.step(*step)
    for slot in list(browser.open):
        browser.step(slot, "end", "")


OPERATIONS = st.sampled_from(
    ["set", "set", "delete", "mutate", "flash", "flash", "pop_flash", "end", "end",
     "invalidate", "regenerate"]
)  # fmt: skip
STEPS = st.lists(st.tuples(st.integers(0, 1), OPERATIONS, st.sampled_from(KEYS)), max_size=24)


@settings(max_examples=300, deadline=None)
@given(STEPS)
@example([(0, "flash", ""), (0, "end", ""), (0, "pop_flash", ""), (1, "flash", "")])
@example([(0, "regenerate", ""), (1, "set", "b"), (1, "end", "")])
@example([(0, "regenerate", ""), (1, "set", "b"), (0, "end", ""), (1, "invalidate", "")])
@example([(0, "delete", "a"), (0, "delete", "list"), (1, "set", "b"), (0, "end", "")])
@example([(0, "set", "b"), (1, "invalidate", ""), (1, "set", "a"), (1, "end", "")])
def test_on_memory(steps: list[Step]) -> None:
    run(Store("memory", memory_options()).factory(), steps)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_on_redis(redis_session: RedisServer, steps: list[Step]) -> None:
    run(Store("redis", {"url": redis_session.url}).factory(), steps)
