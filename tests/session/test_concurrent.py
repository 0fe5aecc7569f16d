"""Concurrent requests of one session, on each store."""

from __future__ import annotations

import itertools
import multiprocessing
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyramid_kvs.exceptions import SessionConflict
from pyramid_kvs.kvs import Swap
from pyramid_kvs.session import SessionFactory
from tests.session.apps import Store, Visit, cookie_of, new_session
from tests.stores import SHARED_STORES

DOCS = Path(__file__).parents[2] / "docs"
#: Threads or processes, and the requests of each of them.
WORKERS, REQUESTS = 8, 25


# -- two requests, step by step --------------------------------------------------------------


def overlap(
    factory: SessionFactory,
    session_id: str,
    first: Callable[[Any], object],
    second: Callable[[Any], object],
) -> tuple[Any, Any]:
    """Read and change the session in two requests; save the first one, then the second one."""
    one, two = Visit(factory, session_id), Visit(factory, session_id)
    one.session.get("")
    two.session.get("")
    first(one.session)
    second(two.session)
    return one.end(), two.end()


def contents(factory: SessionFactory, session_id: str) -> dict[str, Any]:
    return dict(Visit(factory, session_id).session)


def test_different_keys_are_both_kept(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1, b=1, gone=1)
    overlap(
        factory, session_id,
        lambda session: session.update(a=2, new=1),
        lambda session: (session.update(b=2), session.pop("gone")),
    )  # fmt: skip
    assert contents(factory, session_id) == {"a": 2, "b": 2, "new": 1}


def test_later_save_wins_for_one_key(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    overlap(factory, session_id, lambda session: session.update(a=2), lambda s: s.update(a=3))
    assert contents(factory, session_id) == {"a": 3}


def test_deletion_against_change(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1, b=1)
    overlap(factory, session_id, lambda s: s.update(a=2), lambda s: s.pop("a"))
    assert contents(factory, session_id) == {"b": 1}


def test_change_inside_a_value_is_merged(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, cart=[1], other=[1])
    overlap(
        factory, session_id,
        lambda session: session["cart"].append(2),
        lambda session: (session["cart"], session["other"].append(3)),
    )  # fmt: skip
    assert contents(factory, session_id) == {"cart": [1, 2], "other": [1, 3]}


def test_changes_inside_one_value_are_both_kept(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, form={"pages": {"1": {"name": "a"}}, "log": ["x"], "n": 1})
    overlap(
        factory, session_id,
        lambda session: (session["form"]["pages"].update({"2": {}}), session["form"].pop("n")),
        lambda session: (session["form"]["pages"]["1"].update(age=2),
                         session["form"]["log"].append("y")),
    )  # fmt: skip
    overlap(
        factory, session_id,
        lambda session: session["form"]["log"].append("first"),
        lambda session: session["form"]["log"].append("second"),
    )  # fmt: skip
    assert contents(factory, session_id) == {
        "form": {
            "pages": {"1": {"name": "a", "age": 2}, "2": {}},
            "log": ["x", "y", "first", "second"],
        }
    }


def test_values_that_both_requests_create_are_merged(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    overlap(
        factory, session_id,
        lambda session: session.update(cart=["one"], seen={"x": 1}),
        lambda session: (session.setdefault("cart", []).append("two"),
                         session.setdefault("seen", {}).update(y=2)),
    )  # fmt: skip
    found = contents(factory, session_id)
    assert found == {"a": 1, "cart": ["one", "two"], "seen": {"x": 1, "y": 2}}


def test_true_is_not_one(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, flags=[1, 1.0])
    overlap(
        factory, session_id,
        lambda session: session.update(x=1),
        lambda session: session["flags"].__setitem__(0, True),
    )  # fmt: skip
    assert repr(contents(factory, session_id)) == "{'flags': [True, 1.0], 'x': 1}"


def test_flashes_of_both_are_kept(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, _f_=["old"])
    overlap(factory, session_id, lambda s: s.flash("one"), lambda s: s.flash({"m": 2}))
    assert contents(factory, session_id) == {"_f_": ["old", "one", {"m": 2}]}


def test_popped_flash_stays_popped(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, _f_=["old"], a=1)
    overlap(factory, session_id, lambda s: s.flash("new"), lambda s: s.pop_flash())
    assert contents(factory, session_id) == {"_f_": ["new"], "a": 1}
    overlap(factory, session_id, lambda s: s.pop_flash(), lambda s: s.flash("newer"))
    assert contents(factory, session_id) == {"_f_": ["newer"], "a": 1}


@pytest.mark.parametrize(
    "empty",
    [lambda s: s.pop("a", s.pop_flash()), lambda s: (s.popitem(), s.popitem())],
    ids=["pop", "popitem"],
)
def test_session_emptied_by_another_request_takes_a_change(
    store: Store, empty: Callable[[Any], object]
) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1, _f_=["old"])
    first, second = overlap(factory, session_id, empty, lambda s: s.update(b=1))
    assert cookie_of(first) == cookie_of(second) == session_id
    assert contents(factory, session_id) == {"b": 1}


def test_session_emptied_while_it_moves_takes_a_change(store: Store) -> None:
    session_id = new_session(store.factory(), a=1)
    factory = store.factory(hash_keys="migrate")
    overlap(factory, session_id, lambda s: s.pop("a"), lambda s: s.update(b=1))
    assert contents(factory, session_id) == {"b": 1}


def test_emptied_session_leaves_the_store_when_cleared(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    overlap(factory, session_id, lambda s: s.pop("a"), lambda s: s.get("a"))
    assert set(store.record(session_id)) == {"__kvs_created"}
    visit = Visit(factory, session_id)
    visit.session.clear()
    assert cookie_of(visit.end()) == ""
    assert store.data(session_id) is None


def test_flash_popped_and_pushed_again_is_kept(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, _f_=["same"], a=1)
    overlap(
        factory, session_id,
        lambda session: session.pop_flash(),
        lambda session: (session.pop_flash(), session.flash("same"), session.update(b=1)),
    )  # fmt: skip
    assert contents(factory, session_id) == {"_f_": ["same"], "a": 1, "b": 1}


def test_equal_flashes_of_requests_that_popped_are_all_kept(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, _f_=["same"], a=1)
    visits = [Visit(factory, session_id) for _ in range(3)]
    for visit in visits:
        assert visit.session.pop_flash() == ["same"]
        visit.session.flash("same")
    for visit in visits:
        visit.end()
    assert contents(factory, session_id) == {"_f_": ["same"] * 3, "a": 1}


def test_flash_that_was_pushed_again_can_be_popped(memory: Store) -> None:
    """The second request pops what the first one pushed, while a third one adds the same."""
    factory = memory.factory()
    session_id = new_session(factory, _f_=["same"], a=1)

    def pop_and_push(session: Any) -> None:
        session.pop_flash()
        session.flash("same")

    slow, first = Visit(factory, session_id), Visit(factory, session_id)
    pop_and_push(slow.session)
    pop_and_push(first.session)
    first.end()
    second = Visit(factory, session_id)
    assert second.session.pop_flash() == ["same"]
    slow.end()
    second.end()
    assert contents(factory, session_id) == {"_f_": ["same"], "a": 1}


def test_mark_of_popped_flashes_is_stored_only_if_needed(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, a=1)

    def marks(*messages: str) -> set[str]:
        visit = Visit(factory, session_id)
        visit.session.pop_flash("q")
        for message in messages:
            visit.session.flash(message, "q")
        visit.end()
        return memory.record(session_id).keys() - {"a", "_f_q", "__kvs_created"}

    assert marks("one") == set()
    assert marks("two", "two") == set()
    assert marks("three", "two") == {"__kvs_popped_q"}
    assert "__kvs_popped_q" not in contents(factory, session_id)
    assert marks("four") == set()
    assert marks("four") == {"__kvs_popped_q"}
    assert marks() == set()


def test_flash_without_duplicates(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    overlap(
        factory, session_id,
        lambda session: session.flash("saved", allow_duplicate=False),
        lambda session: session.flash("saved", allow_duplicate=False),
    )  # fmt: skip
    assert contents(factory, session_id) == {"_f_": ["saved"], "a": 1}


# -- operations ------------------------------------------------------------------------------


def test_operations_of_both_are_kept(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, n=1, best=5, list=[1])

    def added(value: list[Any]) -> list[Any]:
        value.insert(0, len(value))
        return value

    overlap(
        factory, session_id,
        lambda session: (session.incr("n"), session.incr("new", 2), session.change("list", added),
                         session.change("best", lambda value: max(value, 7))),
        lambda session: (session.incr("n"), session.incr("n", 10), session.incr("new", 3),
                         session.change("best", lambda value: max(value, 6)),
                         session.change("list", added), session.change("list", added)),
    )  # fmt: skip
    assert contents(factory, session_id) == {"n": 13, "best": 7, "list": [3, 2, 1, 1], "new": 5}


def test_operation_on_a_key_that_another_request_removed(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, n=1, b=1)
    overlap(factory, session_id, lambda s: s.pop("n"), lambda s: s.incr("n"))
    assert contents(factory, session_id) == {"n": 1, "b": 1}


def test_operation_runs_again_after_each_conflict(memory: Store) -> None:
    """A function that changes its argument gets each time what the store has."""
    factory = memory.factory()
    session_id = new_session(factory, list=[])
    record = memory.record(session_id)
    swap, values = factory.driver.raw_swap, iter([["t1"], ["t1", "t2"]])

    def swap_too_late(*args: Any) -> Swap:
        value = next(values, None)
        if value is not None:
            memory.put(session_id, {**record, "list": value})
        return swap(*args)

    factory.driver.raw_swap = swap_too_late
    visit, lengths = Visit(factory, session_id), []

    def added(value: list[Any]) -> list[Any]:
        lengths.append(len(value))
        value.append("o")
        return value

    visit.session.change("list", added)
    assert visit.end().status_code == 200
    assert contents(factory, session_id) == {"list": ["t1", "t2", "o"]}
    assert lengths == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: (s.incr("n"), s.update(n=100)), 100),
        (lambda s: (s.update(n=100), s.incr("n")), 101),
        (lambda s: (s.incr("n"), s.pop("n")), None),
        (lambda s: (s.pop("n"), s.incr("n")), 1),
        (lambda s: (s.clear(), s.incr("n")), 1),
    ],
    ids=["set after", "set before", "deleted after", "deleted before", "cleared before"],
)
def test_operation_and_plain_change_of_one_key(
    memory: Store, change: Callable[[Any], object], expected: Any
) -> None:
    factory = memory.factory()
    session_id = new_session(factory, n=1, b=1)
    overlap(factory, session_id, lambda s: s.incr("n"), change)
    assert contents(factory, session_id).get("n") == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.change("list", lambda value: [*value, "c"]).append("d"),
        lambda s: (s.change("list", lambda value: [*value, "c"]), s["list"].append("d")),
        lambda s: (s["list"].append("c"), s.change("list", lambda value: [*value, "d"])),
    ],
    ids=["after, by its result", "after", "before"],
)
def test_operation_and_change_in_place_of_one_key(
    memory: Store, change: Callable[[Any], object]
) -> None:
    factory = memory.factory()
    session_id = new_session(factory, list=["a"])
    overlap(factory, session_id, lambda s: s["list"].append("b"), change)
    assert contents(factory, session_id) == {"list": ["a", "b", "c", "d"]}


def test_operations_are_no_conflict(memory: Store) -> None:
    factory = memory.factory(on_conflict="raise")
    session_id = new_session(factory, n=1)
    _, response = overlap(factory, session_id, lambda s: s.update(n=5), lambda s: s.incr("n"))
    assert response.status_code == 200
    assert contents(factory, session_id) == {"n": 6}


def test_operation_comes_along_with_a_new_id(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, n=1)
    _, response = overlap(
        factory, session_id,
        lambda s: s.incr("n"), lambda s: (s.incr("n"), s.regenerate_id()),
    )  # fmt: skip
    assert contents(factory, cookie_of(response)) == {"n": 3}


def test_operation_runs_again_while_the_session_moves(store: Store) -> None:
    """Other requests save after an earlier save of this one, and before each step of its move."""
    factory = store.factory()
    session_id = new_session(factory, n=1, best=5)
    swap, swaps = factory.driver.raw_swap, itertools.count()

    def swap_late(*args: Any) -> Swap:
        factory.driver.raw_swap = swap
        other = Visit(factory, session_id)
        other.session.incr("n", 10)
        other.session["best"] = 10 + next(swaps)
        other.end()
        factory.driver.raw_swap = swap_late if next(swaps) < 3 else swap
        return swap(*args)

    visit = Visit(factory, session_id)
    visit.session["first"] = 1
    visit.session.save()
    visit.session.incr("n")
    visit.session.change("best", lambda value: max(value, 7))
    visit.session.regenerate_id()
    other = Visit(factory, session_id)
    other.session.incr("n", 100)
    other.end()
    factory.driver.raw_swap = swap_late
    response = visit.end()
    assert next(swaps) == 4
    assert contents(factory, cookie_of(response)) == {
        "n": 122, "best": 12, "first": 1,
    }  # fmt: skip


# -- several saves in one request ------------------------------------------------------------


def test_values_are_watched_after_a_save(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, list=[], object={}, plain=1)
    one, two = Visit(factory, session_id), Visit(factory, session_id)
    held, inner = one.session["list"], one.session["object"]
    one.session.save()
    one.session["plain"] = 2
    one.session.save()
    held.append("o")
    inner["o"] = 1
    two.session["list"].append("t")
    two.session["object"]["t"] = 1
    two.session.incr("plain")
    two.end()
    one.end()
    assert contents(factory, session_id) == {
        "list": ["t", "o"], "object": {"t": 1, "o": 1}, "plain": 3,
    }  # fmt: skip


def test_values_that_a_save_merged_are_watched(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, list=["a", {}], object={"in": {}, "n": 1})
    one, two = Visit(factory, session_id), Visit(factory, session_id)
    held, first, last = one.session["list"], one.session["list"][1], {}
    two.session["list"].append("t")
    two.session["object"]["n"] = 2
    two.end()
    held.append(last)
    inner = one.session["object"]["in"]
    inner["first"] = 1
    one.session.save()
    assert held == ["a", {}, "t", {}]
    held.append("o")
    first["x"] = 1
    last["y"] = 2
    inner["second"] = 2
    one.end()
    assert contents(factory, session_id) == {
        "list": ["a", {"x": 1}, "t", {"y": 2}, "o"],
        "object": {"in": {"first": 1, "second": 2}, "n": 2},
    }


def test_objects_that_the_application_assigned_are_not_changed(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, a=1)
    constant: list[str] = []
    one, two = Visit(factory, session_id), Visit(factory, session_id)
    for visit in (one, two):
        visit.session["list"] = constant
        visit.session.change("other", lambda value: constant)
    two.session["list"] = ["t"]
    two.session["other"] = ["t"]
    two.end()
    one.session.save()
    three = Visit(factory, session_id)
    three.session["list"].append("u")
    three.session.update(other=["u"], a=2)
    three.end()
    one.session["a"] = 3
    one.end()
    assert contents(factory, session_id)["list"] == ["t", "u"]
    assert constant == []


def test_operations_after_a_save(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, n=1, list=[], other=[])
    visit = Visit(factory, session_id)
    held = visit.session["list"]
    visit.session.incr("n")
    visit.session.save()
    held.append("held")
    visit.session.incr("n")
    visit.session.change("list", lambda value: [*value, "changed"])
    visit.session.change("other", lambda value: [*value, "changed"])
    other = Visit(factory, session_id)
    for key in ("list", "other"):
        other.session.change(key, lambda value: ["first", *value])
    other.session.incr("n")
    other.end()
    visit.end()
    assert contents(factory, session_id) == {
        "n": 4, "list": ["first", "held", "changed"], "other": ["first", "changed"],
    }  # fmt: skip


def test_second_save_without_a_change_writes_nothing(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, list=[{"a": 1.0}], n=1)
    visit = Visit(factory, session_id)
    visit.session["list"].append({"b": (1, 2), "c": {1: "x"}})
    visit.session.save()
    store.put(session_id, {**store.record(session_id), "other": 1})
    written = store.data(session_id)
    visit.session.save()
    visit.end()
    assert store.data(session_id) == written


def test_value_that_cannot_be_written_is_found_after_a_save(memory: Store) -> None:
    factory = memory.factory()
    visit = Visit(factory, new_session(factory, list=[1]))
    held = visit.session["list"]
    visit.session["n"] = 1
    visit.session.save()
    held.append(object())
    with pytest.raises(TypeError, match="'list'"):
        visit.session.save()


# -- endings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["invalidate", "clear", "regenerate_id"], ids=lambda name: name)
def test_ended_session_is_not_brought_back(
    store: Store, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    factory = store.factory()
    session_id = new_session(factory, user="u")
    first, second = overlap(
        factory, session_id, lambda s: getattr(s, ending)(), lambda s: s.update(late=1)
    )
    assert not store.has_session(session_id)
    assert cookie_of(second) is None
    assert len(caplog.records) == 1
    assert session_id not in caplog.text
    new_id = cookie_of(first)
    if new_id:
        assert contents(factory, new_id) == {"user": "u"}


def test_logout_of_version_1_is_not_undone(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, user="u")
    late = Visit(factory, session_id)
    late.session["late"] = 1
    store.put(session_id, {})
    late.end()
    assert store.record(session_id) == {}


def test_change_before_regenerate_comes_along(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1, _f_=["old"])
    _, response = overlap(
        factory, session_id,
        lambda session: (session.update(b=1), session.flash("one")),
        lambda session: (session.regenerate_id(), session.flash("two")),
    )  # fmt: skip
    assert not store.has_session(session_id)
    assert contents(factory, cookie_of(response)) == {"a": 1, "b": 1, "_f_": ["old", "one", "two"]}


def test_two_regenerations_leave_one_session(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    first, second = overlap(
        factory, session_id, lambda s: s.regenerate_id(), lambda s: s.regenerate_id()
    )
    assert contents(factory, cookie_of(first)) == {"a": 1}
    assert cookie_of(second) is None


def test_overwrite_keeps_the_last_record_only(store: Store) -> None:
    factory = store.factory(on_conflict="overwrite")
    session_id = new_session(factory, a=1)
    overlap(factory, session_id, lambda s: s.update(b=1), lambda s: s.update(c=1))
    assert contents(factory, session_id) == {"a": 1, "c": 1}


def test_raise_names_the_key_and_answers_409(store: Store) -> None:
    factory = store.factory(on_conflict="raise")
    session_id = new_session(factory, a=1)
    overlap(factory, session_id, lambda s: s.update(b=1), lambda s: s.update(c=1))
    one, two = Visit(factory, session_id), Visit(factory, session_id)
    one.session["a"] = 2
    two.session["a"] = 3
    one.end()
    with pytest.raises(SessionConflict, match="'a'"):
        two.session.save()
    response = two.end()
    assert response.status_code == 409
    assert cookie_of(response) is None
    assert contents(factory, session_id) == {"a": 2, "b": 1, "c": 1}


def test_raise_accepts_what_can_be_merged(memory: Store) -> None:
    factory = memory.factory(on_conflict="raise")
    session_id = new_session(factory, a={"list": [1], "n": 1})
    one, two = overlap(
        factory, session_id,
        lambda session: (session["a"]["list"].append(2), session["a"].update(n=2)),
        lambda session: session["a"]["list"].append(3),
    )  # fmt: skip
    assert (one.status_code, two.status_code) == (200, 200)
    one, two = overlap(
        factory, session_id,
        lambda session: session["a"].update(n=3),
        lambda session: session["a"].update(n=4),
    )  # fmt: skip
    assert (one.status_code, two.status_code) == (200, 409)
    assert contents(factory, session_id) == {"a": {"list": [1, 2, 3], "n": 3}}


def test_same_value_from_both_is_no_conflict(memory: Store) -> None:
    factory = memory.factory(on_conflict="raise")
    session_id = new_session(factory, a=1)
    _, response = overlap(factory, session_id, lambda s: s.update(a=2), lambda s: s.update(a=2))
    assert response.status_code == 200


def test_two_first_requests_with_one_token(store: Store) -> None:
    factory = store.factory(session_type="header", key_name="X-Token")
    one, two = Visit(factory, X_Token="t"), Visit(factory, X_Token="t")
    one.session["a"] = 1
    two.session["b"] = 2
    one.end()
    two.end()
    assert dict(Visit(factory, X_Token="t").session) == {"a": 1, "b": 2}


def test_too_many_conflicts_are_answered_503(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    record, counter = store.record(session_id), itertools.count()
    swap, factory.driver.update_attempts = factory.driver.raw_swap, 4

    def swap_too_late(*args: Any) -> Swap:
        store.put(session_id, {**record, "n": next(counter)})
        return swap(*args)

    factory.driver.raw_swap = swap_too_late
    visit = Visit(factory, session_id)
    visit.session["b"] = 2
    response = visit.end()
    assert response.status_code == 503
    assert "Retry-After" in response.headers
    assert next(counter) == 4
    assert "b" not in store.record(session_id)


def test_demonstration_of_the_docs() -> None:
    script = [sys.executable, str(DOCS / "two_browsers.py")]
    printed = subprocess.run(script, capture_output=True, text=True, timeout=60, check=True).stdout
    quoted = textwrap.indent(printed, "    ")
    assert quoted in (DOCS / "sessions.rst").read_text(encoding="utf-8")


# -- many at once ----------------------------------------------------------------------------


def visit_often(
    factory: SessionFactory, session_id: str, barrier: Any, worker: int, rounds: int
) -> None:
    """Change the session in each round. All workers read before any of them saves."""
    for count in range(rounds):
        visit, name = Visit(factory, session_id), f"{worker}.{count}"
        visit.session.get("")
        barrier.wait(60)
        change_everything(visit.session, name)
        assert visit.end().status_code == 200


def change_everything(session: Any, name: str) -> None:
    session[name] = 1
    session.flash(name)
    session["list"].append(name)
    session["object"]["inner"][name] = [name]
    session["object"].setdefault("created", {})[name] = 1
    session.setdefault("created", []).append(name)
    session.change("changed", lambda value: [name, *value])
    session.incr("count")


def check_all(factory: SessionFactory, session_id: str, workers: int, rounds: int) -> None:
    names = [f"{worker}.{count}" for worker in range(workers) for count in range(rounds)]
    found = contents(factory, session_id)
    assert found.pop("count") == len(names) == 200
    assert found.pop("object") == {
        "inner": {name: [name] for name in names}, "created": dict.fromkeys(names, 1),
    }  # fmt: skip
    for key in ("_f_", "list", "created", "changed"):
        assert sorted(found.pop(key)) == sorted(names)
    assert found == dict.fromkeys(names, 1)


def shared_session(factory: SessionFactory) -> str:
    return new_session(factory, list=[], object={"inner": {}}, changed=[])


def test_threads_lose_nothing(store: Store) -> None:
    factory = store.factory()
    session_id = shared_session(factory)
    barrier = threading.Barrier(WORKERS)
    threads = [
        threading.Thread(target=visit_often, args=(factory, session_id, barrier, worker, REQUESTS))
        for worker in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_all(factory, session_id, WORKERS, REQUESTS)


def work(options: dict[str, Any], session_id: str, barrier: Any, worker: int) -> None:
    """Run the requests of a process, which has its own driver."""
    visit_often(SessionFactory(options), session_id, barrier, worker, REQUESTS)


@pytest.mark.parametrize("store", SHARED_STORES, indirect=True)
def test_processes_lose_nothing(store: Store) -> None:
    """Processes do not share the driver ``memory``, for which the test with threads is enough."""
    session_id = shared_session(store.factory())
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(WORKERS)
    workers = [
        context.Process(target=work, args=(store.options, session_id, barrier, worker))
        for worker in range(WORKERS)
    ]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    check_all(store.factory(), session_id, WORKERS, REQUESTS)


def test_invalidate_among_many_is_never_undone(store: Store) -> None:
    factory = store.factory()
    for _ in range(5):
        session_id = new_session(factory, user="u")
        barrier = threading.Barrier(WORKERS)

        def visit(worker: int, session_id: str = session_id, barrier: Any = barrier) -> None:
            visit = Visit(factory, session_id)
            visit.session.get("user")
            barrier.wait(60)
            if worker == 0:
                visit.session.invalidate()
            else:
                visit.session[f"late {worker}"] = 1
            visit.end()

        threads = [threading.Thread(target=visit, args=(n,)) for n in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.data(session_id) is None
