"""The driver contract as tests; a driver joins with a class that has the fixture ``store``.

::

    class TestRedis(SharedConformance):
        @pytest.fixture
        def store(self, redis_server):
            return "redis", {"port": redis_server.port}

``store`` gives a driver's name and its ``kvs_kwargs``. Where a store must differ, the class
overrides a test and says why.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_kvs.exceptions import CodecError, KVSError, KVSNotSupported
from pyramid_kvs.kvs import KVS, Stored

DAY = 86400
HOSTILE_KEYS = [
    "",
    " ",
    "two words",
    "line\r\nflush_all\r\nset x 0 0 1\r\n1",
    "nul\0byte",
    "tab\tand \x7f delete",
    "k" * 250,
    "k" * 251,
    "k" * 10_240,
    "Ключ-鍵-🔑",
    "é" * 200,
    "lone\ud800surrogate",
    "*?[a-z]\\{}^$",
    "%_\\%",
    "'; DROP TABLE kvs; --",
    "__kvs_x",
]
MODEL_KEYS = ["a", "b", "ключ"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
Make = Callable[..., KVS]
_numbers = itertools.count()


class Conformance:
    #: Whether ``get_keys`` and ``flush`` of a prefix exist.
    lists_keys = True

    @pytest.fixture
    def new(self, store: tuple[str, dict[str, Any]]) -> Iterator[Make]:
        """Build drivers on the store under test, each under a prefix of this test's own."""
        name, kvs_kwargs = store
        prefix = f"conformance{next(_numbers)}::"
        built: list[KVS] = []

        def make(prefix: str = prefix, **options: Any) -> KVS:
            driver = KVS(name, kvs_kwargs, prefix, **options)
            driver.initialize_schema()
            built.append(driver)
            return driver

        yield make
        for driver in built:
            driver.close()

    @pytest.fixture
    def kvs(self, new: Make) -> KVS:
        return new()

    # -- get, set, delete -----------------------------------------------------------------

    def test_is_a_kvs(self, kvs: KVS) -> None:
        assert isinstance(kvs, KVS)
        assert isinstance(kvs.key_prefix, bytes)
        assert kvs.ttl == 300

    def test_missing_is_the_default(self, kvs: KVS) -> None:
        default = object()
        assert kvs.get("missing") is None
        assert kvs.get("missing", default) is default
        assert kvs.get(None, default) is default

    @pytest.mark.parametrize("value", [None, False, 0, "", [], {}, {"a": [1, 2.5, "é", None]}])
    def test_falsy_values_are_values(self, kvs: KVS, value: Any) -> None:
        kvs.set("key", value)
        assert kvs.get("key", "default") == value
        assert type(kvs.get("key", "default")) is type(value)

    def test_set_replaces(self, kvs: KVS) -> None:
        kvs.set("key", "old" * 100)
        kvs.set("key", "new")
        assert kvs.get("key") == "new"

    def test_json_refuses_bytes(self, kvs: KVS) -> None:
        with pytest.raises(TypeError):
            kvs.set("key", b"bytes")
        with pytest.raises(TypeError):
            kvs.set_many({"good": 1, "bad": {"in": b"bytes"}})
        assert kvs.get("key") is None
        assert kvs.get("good") is None

    def test_stored_data_is_what_json_dumps(self, kvs: KVS) -> None:
        value = {"é": [1, 2.5, None, True], "b": "☺"}
        kvs.set("key", value, 60)
        data = kvs.raw_get("key")
        text = data if isinstance(data, str) else data.decode()
        assert text == json.dumps(value)

    def test_delete_gives_the_old_value(self, kvs: KVS) -> None:
        kvs.set("key", [1])
        assert kvs.delete("key") == [1]
        assert kvs.delete("key") is None
        assert kvs.get("key") is None

    def test_set_with_no_life_removes(self, kvs: KVS) -> None:
        for ttl in (0, -1):
            kvs.set("key", 1)
            kvs.set("key", 2, ttl)
            assert kvs.get("key") is None
            kvs.set_many({"key": 1})
            kvs.set_many({"key": 2}, ttl)
            assert kvs.get("key") is None

    def test_keys_are_text(self, kvs: KVS) -> None:
        with pytest.raises(TypeError):
            kvs.get(b"bytes")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            kvs.set(7, 1)  # type: ignore[arg-type]

    def test_pickle_codec(self, new: Make) -> None:
        kvs = new(codec="pickle")
        kvs.set("key", {1: (b"\0\xff", {2})})
        assert kvs.get("key") == {1: (b"\0\xff", {2})}
        assert kvs.get_many(["key"]) == {"key": {1: (b"\0\xff", {2})}}
        assert kvs.delete("key") == {1: (b"\0\xff", {2})}

    def test_a_value_of_100_kilobytes(self, kvs: KVS) -> None:
        value = "Ω" * 15_000
        kvs.set("key", value)
        assert kvs.get("key") == value

    # -- keys -----------------------------------------------------------------------------

    @pytest.mark.parametrize("key", HOSTILE_KEYS, ids=lambda key: ascii(key[:12]))
    def test_any_text_is_a_key(self, kvs: KVS, key: str) -> None:
        kvs.set("canary", "alive")
        kvs.set(key, "value")
        assert kvs.get(key) == "value"
        assert kvs.get_many([key, "canary"]) == {key: "value", "canary": "alive"}
        assert kvs.update(key, lambda old: old + "!") == "value!"
        assert kvs.ttl_of(key) > 0
        assert kvs.expire(key, 100)
        if self.lists_keys:
            assert sorted(kvs.get_keys()) == sorted([key, "canary"])
        assert kvs.delete(key) == "value!"
        assert kvs.incr(key) == 1
        assert kvs.delete(key) == 1
        assert kvs.get("canary") == "alive"

    def test_long_keys_do_not_collide(self, kvs: KVS) -> None:
        keys = ["x" * 300 + str(n) for n in range(20)] + ["y z" + str(n) for n in range(20)]
        kvs.set_many({key: key for key in keys})
        assert kvs.get_many(keys) == {key: key for key in keys}

    def test_prefixes_keep_drivers_apart(self, new: Make) -> None:
        one, other = new(prefix="one::"), new(prefix="other::")
        one.set("key", 1)
        other.set("key", 2)
        assert (one.get("key"), other.get("key")) == (1, 2)
        one.delete("key")
        assert (one.get("key"), other.get("key")) == (None, 2)

    # -- life time ------------------------------------------------------------------------

    def test_a_fraction_of_a_second(self, kvs: KVS) -> None:
        kvs.set("short", 1, 0.2)
        kvs.set_many({"many": 1}, 0.2)
        kvs.set("long", 1, 30.5)
        assert kvs.add("added", 1, 0.2)
        assert kvs.incr("counter", 5, 0.2) == 5
        assert kvs.get_many(["short", "many", "added", "counter"]) == {
            "short": 1,
            "many": 1,
            "added": 1,
            "counter": 5,
        }
        time.sleep(0.25)
        keys = ["short", "many", "long", "added", "counter"]
        assert kvs.get_many(keys) == {"long": 1}
        assert kvs.get("short") is None
        assert kvs.delete("many") is None
        assert kvs.add("added", 2)
        assert kvs.incr("counter") == 1
        assert kvs.update("short", lambda old: [old]) == [None]

    def test_the_drivers_own_ttl(self, new: Make) -> None:
        kvs = new(ttl=0.2)
        kvs.set("key", 1)
        kvs.set("longer", 1, 50)
        time.sleep(0.25)
        assert kvs.get("key") is None
        assert kvs.get("longer") == 1

    def test_ttl_of(self, kvs: KVS, new: Make) -> None:
        kvs.set("key", 1, 60)
        assert 57 < kvs.ttl_of("key") <= 60
        assert isinstance(kvs.ttl_of("key"), float)
        assert kvs.ttl_of("missing") < 0
        kvs.set("fraction", 1, 60.5)
        assert 58 < kvs.ttl_of("fraction") <= 60.5
        new(ttl=None).set("eternal", 1)
        assert kvs.ttl_of("eternal") < 0

    def test_no_expiry(self, new: Make) -> None:
        kvs = new(ttl=None)
        kvs.set("key", 1)
        kvs.set_many({"many": 1})
        kvs.incr("counter")
        kvs.update("updated", lambda old: 1)
        kvs.add("added", 1)
        assert all(kvs.ttl_of(k) < 0 for k in ("key", "many", "counter", "updated", "added"))
        assert len(kvs.get_many(["key", "many", "counter", "updated", "added"])) == 5

    @pytest.mark.parametrize("ttl", [29 * DAY, 30 * DAY, 30 * DAY + 1, 40 * DAY, 400 * DAY])
    def test_any_number_of_days(self, kvs: KVS, ttl: int) -> None:
        kvs.set("key", 1, ttl)
        kvs.add("added", 1, ttl)
        kvs.incr("counter", 1, ttl)
        kvs.set("expiring", 1)
        kvs.expire("expiring", ttl)
        for key in ("key", "added", "counter", "expiring"):
            assert kvs.get(key) == 1
            assert abs(kvs.ttl_of(key) - ttl) < 5

    def test_expire(self, kvs: KVS) -> None:
        kvs.set("key", {"a": 1}, 10)
        assert kvs.expire("key", 100) is True
        assert 90 < kvs.ttl_of("key") <= 100
        assert kvs.expire("key", 100.5) is True
        assert 90 < kvs.ttl_of("key") <= 100.5
        assert kvs.get("key") == {"a": 1}
        assert kvs.expire("key", 0) is True
        assert kvs.get("key") is None

    def test_expire_creates_nothing(self, kvs: KVS) -> None:
        assert kvs.expire("missing", 100) is False
        assert kvs.expire("missing", 0) is False
        assert kvs.get("missing") is None
        assert kvs.ttl_of("missing") < 0

    def test_expire_soon(self, kvs: KVS) -> None:
        kvs.set("key", 1, 100)
        kvs.incr("counter", 1, 100)
        kvs.expire("key", 0.2)
        kvs.expire("counter", 0.2)
        assert kvs.get_many(["key", "counter"]) == {"key": 1, "counter": 1}
        time.sleep(0.25)
        assert kvs.get_many(["key", "counter"]) == {}

    # -- add, incr, update ----------------------------------------------------------------

    def test_add(self, kvs: KVS) -> None:
        assert kvs.add("key", 1) is True
        assert kvs.add("key", 2) is False
        assert kvs.get("key") == 1
        kvs.delete("key")
        assert kvs.add("key", 3) is True

    def test_counters(self, kvs: KVS) -> None:
        assert kvs.incr("counter") == 1
        assert kvs.incr("counter", 5) == 6
        assert kvs.decr("counter", 10) == -4
        assert kvs.get("counter") == -4
        assert kvs.incr("counter", 3) == -1
        assert kvs.incr("counter", 1) == 0
        assert kvs.get("counter") == 0
        assert kvs.decr("fresh") == -1
        assert kvs.get_many(["counter", "fresh"]) == {"counter": 0, "fresh": -1}
        assert kvs.delete("fresh") == -1

    def test_counters_shrink_in_digits(self, kvs: KVS) -> None:
        kvs.incr("counter", 100)
        assert kvs.decr("counter", 91) == 9
        assert kvs.get("counter") == 9
        assert kvs.incr("counter") == 10

    @pytest.mark.parametrize("codec", ["json", "pickle", "storable"])
    def test_a_counter_is_a_number_with_every_codec(self, new: Make, codec: str) -> None:
        kvs = new(codec=codec)
        kvs.incr("counter", 41)
        kvs.incr("counter")
        assert kvs.get("counter") == 42
        assert kvs.delete("counter") == 42

    def test_incr_starts_the_clock_once(self, kvs: KVS) -> None:
        kvs.incr("counter", 1, 100)
        kvs.incr("counter", 1, 500)
        assert 90 < kvs.ttl_of("counter") <= 100

    def test_incr_of_a_fraction_keeps_its_clock(self, kvs: KVS) -> None:
        kvs.incr("counter", 1, 100.5)
        kvs.incr("counter", 1, 500)
        assert 90 < kvs.ttl_of("counter") <= 100.5
        assert kvs.get("counter") == 2

    def test_incr_mends_a_counter_without_expiry(self, new: Make) -> None:
        new(ttl=None).incr("counter")
        assert new().incr("counter", 1, 100) == 2
        assert 90 < new().ttl_of("counter") <= 100

    def test_incr_of_no_number(self, kvs: KVS) -> None:
        kvs.set("key", "text")
        with pytest.raises(KVSError):
            kvs.incr("key")
        assert kvs.get("key") == "text"

    @pytest.mark.parametrize("delta", [1.5, "1", None])
    def test_a_counter_takes_whole_steps(self, kvs: KVS, delta: Any) -> None:
        with pytest.raises(TypeError):
            kvs.incr("counter", delta)
        assert kvs.get("counter") is None

    def test_true_is_a_step_of_one(self, kvs: KVS) -> None:
        assert kvs.incr("counter", True) == 1

    def test_a_counter_must_live(self, kvs: KVS) -> None:
        with pytest.raises(ValueError, match="more than 0"):
            kvs.incr("counter", 1, 0)

    def test_update(self, kvs: KVS) -> None:
        assert kvs.update("key", lambda old: [old]) == [None]
        assert kvs.update("key", lambda old: [*old, 2], ttl=77) == [None, 2]
        assert kvs.get("key") == [None, 2]
        assert 70 < kvs.ttl_of("key") <= 77
        assert kvs.update("key", lambda old: None) is None
        assert kvs.get("key", "gone") == "gone"
        assert kvs.update("missing", lambda old: None) is None

    def test_update_passes_errors_on(self, kvs: KVS) -> None:
        kvs.set("key", 1)

        def fail(old: Any) -> Any:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            kvs.update("key", fail)
        assert kvs.get("key") == 1

    def test_update_sees_a_change_in_between(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        seen = []

        def change(old: int) -> int:
            if not seen:
                kvs.set("key", 10)
            seen.append(old)
            return old + 1

        assert kvs.update("key", change) == 11
        assert seen == [1, 10]

    def test_update_sees_a_removal_and_a_creation(self, kvs: KVS) -> None:
        steps: Iterator[Callable[[], Any]] = iter(
            [lambda: kvs.delete("key"), lambda: kvs.set("key", 5), lambda: None]
        )
        kvs.set("key", 1)
        seen = []

        def change(old: int | None) -> int:
            next(steps)()
            seen.append(old)
            return (old or 0) + 1

        assert kvs.update("key", change) == 6
        assert seen == [1, None, 5]

    # -- several keys ---------------------------------------------------------------------

    def test_many(self, kvs: KVS) -> None:
        mapping = {f"key{n}": {"n": n} for n in range(150)}
        kvs.set_many(mapping, 100)
        assert kvs.get_many([*mapping, "missing"]) == mapping
        assert 90 < kvs.ttl_of("key7") <= 100
        kvs.delete_many([f"key{n}" for n in range(149)] + ["missing"])
        assert kvs.get_many(mapping) == {"key149": {"n": 149}}

    def test_many_of_nothing(self, kvs: KVS) -> None:
        assert kvs.get_many([]) == {}
        kvs.set_many({})
        kvs.delete_many([])

    def test_many_takes_iterables(self, kvs: KVS) -> None:
        kvs.set_many({"a": 1, "b": 2})
        assert kvs.get_many(key for key in ("a", "b", "a")) == {"a": 1, "b": 2}
        kvs.delete_many(key for key in ("a", "b"))
        assert kvs.get_many(["a", "b"]) == {}

    # -- undecodable data -----------------------------------------------------------------

    def test_undecodable_data(self, kvs: KVS) -> None:
        kvs.raw_set("bad", "{not json", 60)
        with pytest.raises(CodecError):
            kvs.get("bad")
        with pytest.raises(CodecError):
            kvs.get_many(["bad"])
        with pytest.raises(CodecError):
            kvs.update("bad", lambda old: 1)
        assert kvs.delete("bad") is None
        assert kvs.get("bad") is None

    # -- listing --------------------------------------------------------------------------

    def test_get_keys(self, new: Make, kvs: KVS) -> None:
        if self._refuses_to_list(kvs):
            return
        keys = ["a", "ab", "abc", "b", "[a]", "a*", "a%b", "a_b", "a\\b", "line\nbreak", "é"]
        kvs.set_many(dict.fromkeys(keys, 1))
        for pattern, expected in {
            "*": keys,
            "a?": ["ab", "a*"],
            "a*": ["a", "ab", "abc", "a*", "a%b", "a_b", "a\\b"],
            "?": ["a", "b", "é"],
            "[a]": ["[a]"],
            "a%b": ["a%b"],
            "a_b": ["a_b"],
            "a\\b": ["a\\b"],
            "a\\*": ["a\\b"],
            "line?break": ["line\nbreak"],
            "abc": ["abc"],
            "A": [],
            "": [],
        }.items():
            assert sorted(kvs.get_keys(pattern)) == sorted(expected), pattern

    def test_a_prefix_is_never_a_pattern(self, new: Make) -> None:
        odd, other = new(prefix="p*[a]?%_\\::"), new(prefix="pxa???\\::")
        if self._refuses_to_list(odd):
            return
        odd.set("mine", 1)
        other.set("other", 1)
        assert odd.get_keys() == ["mine"]
        odd.flush()
        assert odd.get("mine") is None
        assert other.get("other") == 1

    def test_get_keys_leaves_out_the_expired(self, kvs: KVS) -> None:
        if self._refuses_to_list(kvs):
            return
        kvs.set("key", 1, 0.1)
        kvs.set("other", 1)
        time.sleep(0.15)
        assert kvs.get_keys() == ["other"]

    def test_flush_keeps_to_the_prefix(self, new: Make) -> None:
        one, other = new(prefix="flush::"), new(prefix="flushed::")
        if self._refuses_to_list(one):
            return
        one.set_many({f"key{n}": n for n in range(300)})
        other.set("key", 1)
        one.flush()
        assert one.get_keys() == []
        assert other.get("key") == 1

    def _refuses_to_list(self, kvs: KVS) -> bool:
        """Check that a store that cannot list says so, instead of listing nothing."""
        if self.lists_keys:
            return False
        with pytest.raises(KVSNotSupported):
            kvs.get_keys()
        with pytest.raises(KVSNotSupported):
            kvs.flush()
        return True

    # -- hooks that sessions and limits stand on ------------------------------------------

    def test_load_renews(self, kvs: KVS) -> None:
        kvs.set("key", {"a": 1}, 10)
        stored = kvs.raw_load("key", renew=100)
        assert stored is not None
        assert kvs.decode(stored.data) == {"a": 1}
        assert 85 < kvs.ttl_of("key") <= 100
        assert kvs.raw_load("missing", renew=100) is None
        assert kvs.get("missing") is None

    def test_swap(self, kvs: KVS) -> None:
        assert kvs.raw_swap("key", None, "1", 60).done
        first = kvs.raw_load("key")
        assert first is not None
        assert kvs.raw_swap("key", first, "2", 60).done
        late = kvs.raw_swap("key", first, "3", 60)
        assert not late.done
        assert late.current is not None
        assert kvs.decode(late.current.data) == 2
        assert kvs.raw_swap("key", late.current, "4", 60).done
        assert kvs.get("key") == 4

    def test_swap_against_absence(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        taken = kvs.raw_swap("key", None, "2", 60)
        assert not taken.done
        assert taken.current is not None
        assert kvs.decode(taken.current.data) == 1
        gone = kvs.raw_load("key")
        kvs.delete("key")
        assert kvs.raw_swap("key", gone, "3", 60) == (False, None)
        assert kvs.raw_swap("key", gone, None, 60) == (False, None)
        assert kvs.get("key") is None

    def test_swap_removes(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        assert kvs.raw_swap("key", kvs.raw_load("key"), None, 60).done
        assert kvs.get("key") is None

    def test_swap_sets_the_ttl(self, kvs: KVS) -> None:
        kvs.set("key", 1, 10)
        kvs.raw_swap("key", kvs.raw_load("key"), "2", 100)
        assert 90 < kvs.ttl_of("key") <= 100

    def test_load_many(self, kvs: KVS) -> None:
        kvs.set_many({"a": 1, "b": 2})
        found = kvs.raw_load_many(["a", "b", "missing"])
        assert {key: kvs.decode(stored.data) for key, stored in found.items()} == {"a": 1, "b": 2}
        assert all(isinstance(stored, Stored) for stored in found.values())
        assert kvs.raw_swap("a", found["a"], "10", 60).done
        assert kvs.get("a") == 10

    # -- the store ------------------------------------------------------------------------

    def test_ping(self, kvs: KVS) -> None:
        assert kvs.ping() is True

    def test_schema_is_idempotent(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        kvs.initialize_schema()
        kvs.initialize_schema(dry_run=True)
        assert kvs.get("key") == 1

    def test_close_is_not_the_end(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        kvs.close()
        kvs.close()
        assert kvs.get("key") == 1

    # -- concurrency ----------------------------------------------------------------------

    def test_threads_count_exactly(self, kvs: KVS) -> None:
        added: list[bool] = []

        def work() -> None:
            for _ in range(25):
                kvs.incr("counter")
                kvs.update("value", lambda old: (old or 0) + 1)
            added.append(kvs.add("once", 1))

        in_threads(8, work)
        assert kvs.get("counter") == 200
        assert kvs.get("value") == 200
        assert sorted(added) == [False] * 7 + [True]

    def test_threads_delete_once(self, kvs: KVS) -> None:
        for _ in range(5):
            kvs.set("key", "value")
            deleted: list[Any] = []
            in_threads(6, lambda deleted=deleted: deleted.append(kvs.delete("key")))
            assert sorted(deleted, key=str) == [None] * 5 + ["value"]

    # -- a model --------------------------------------------------------------------------

    def test_behaves_like_a_dict(self, kvs: KVS) -> None:
        @settings(max_examples=25, deadline=None)
        @given(st.data())
        def agrees(data: st.DataObject) -> None:
            kvs.delete_many(MODEL_KEYS)
            model: dict[str, Any] = {}
            for _ in range(data.draw(st.integers(1, 12))):
                _draw_a_step(data, kvs, model)
                assert kvs.get_many(MODEL_KEYS) == model

        agrees()


class SharedConformance(Conformance):
    """For stores that several processes see."""

    def test_twelve_processes_count_exactly(self, kvs: KVS, new: Make) -> None:
        kvs.set("warm", 1)  # a connection is open when the processes fork
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(12)
        processes = [
            context.Process(target=_count, args=(kvs, barrier, number)) for number in range(12)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * 12
        assert kvs.get("counter") == 12 * 20
        assert kvs.get("updated") == 12 * 20
        assert kvs.get("once") in range(12)
        assert kvs.get("wins") == 1


def _draw_a_step(data: st.DataObject, kvs: KVS, model: dict[str, Any]) -> None:
    """Do one operation on a store and on a dictionary, and compare what they return."""
    operation = data.draw(st.sampled_from(["set", "add", "delete", "update", "many"]))
    key = data.draw(st.sampled_from(MODEL_KEYS))
    value = data.draw(json_values)
    if operation == "set":
        kvs.set(key, value)
        model[key] = value
    elif operation == "add":
        assert kvs.add(key, value) is (key not in model)
        model.setdefault(key, value)
    elif operation == "delete":
        assert kvs.delete(key) == model.pop(key, None)
    elif operation == "update":
        kvs.update(key, lambda old: [old, value])
        model[key] = [model.get(key), value]
    else:
        kvs.set_many(dict.fromkeys(MODEL_KEYS, value))
        model.update(dict.fromkeys(MODEL_KEYS, value))
    assert kvs.get(key, "missing") == model.get(key, "missing")


def _count(kvs: KVS, barrier: Any, number: int) -> None:
    barrier.wait(60)
    if kvs.add("once", number):
        kvs.incr("wins")
    for _ in range(20):
        kvs.incr("counter")
        kvs.update("updated", lambda old: (old or 0) + 1)


def in_threads(count: int, work: Callable[[], Any]) -> None:
    """Run ``work`` in several threads that start together; raise what any of them raised."""
    barrier = threading.Barrier(count)
    errors: list[BaseException] = []

    def run() -> None:
        barrier.wait(60)
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors, errors
