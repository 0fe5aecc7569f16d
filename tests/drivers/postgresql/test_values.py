"""Keys, values, counters and compare-and-set on PostgreSQL, beyond the conformance suite."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSError, ValueTooLarge
from pyramid_kvs.kvs import Stored
from tests.drivers.postgresql.helpers import Make, PostgresqlKVS, locked, wait_for_blocked
from tests.servers import PostgresServer


def test_strings_stay_strings_and_bytes_stay_bytes(store: PostgresqlKVS) -> None:
    store.raw_set("text", "\u20ac\0", 300)
    store.raw_set("bytes", b"\xff\0", 300)
    assert store.raw_get_many(["text", "bytes"]) == {"text": "\u20ac\0", "bytes": b"\xff\0"}


def test_long_keys_do_not_collide(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    long = "k" * 3000
    store.set(long, "one")
    store.set(long + "x", "two")
    mapped = postgres_server.execute("SELECT key FROM kvs WHERE long_key IS NOT NULL")
    assert len(mapped) == 2
    assert all(len(key) == 1032 for (key,) in mapped)
    lookalike = mapped[0][0].decode("latin-1")[3:]
    store.set(lookalike, "three")
    assert store.get_many([long, long + "x", lookalike]) == {
        long: "one",
        long + "x": "two",
        lookalike: "three",
    }
    assert sorted(store.get_keys("k*x")) == [long + "x"]
    assert sorted(store.get_keys("k" * 2999 + "?")) == [long]


def test_flush_of_a_long_prefix(store: PostgresqlKVS, make: Make, postgres_server: Any) -> None:
    inner, outer = "p::" + "k" * 1500, "p::" + "k" * 1499
    make(postgres_server, inner).set("a", 1)
    make(postgres_server, outer).set("b", 2)
    make(postgres_server, inner).flush()
    assert store.get_keys() == ["k" * 1499 + "b"]


@pytest.mark.parametrize("prefix", ["%", "_", "\\", "a_", "*", "?", "\xff"])
def test_flush_takes_the_prefix_literally(
    prefix: str, make: Make, store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    everything = make(postgres_server, "")
    others = {"a", "ab", "ab:", "p::x", "\\\\", "\xfe", "\u0100"}
    for key in others - {"\\" + prefix}:
        everything.set(key, 1)
    before = set(everything.get_keys())
    mine = make(postgres_server, prefix)
    mine.set_many({"1": 1, "%": 2, "": 3})
    assert sorted(mine.get_keys()) == ["", "%", "1"]
    mine.flush()
    assert set(everything.get_keys()) == before


def test_key_lists_go_in_pages(
    store: PostgresqlKVS, monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer
) -> None:
    from pyramid_kvs.drivers.postgresql import driver as postgresql

    monkeypatch.setattr(postgresql, "SCAN_ROWS", 10)
    monkeypatch.setattr(postgresql, "FLUSH_ROWS", 10)
    keys = {f"{number:03}" for number in range(30)}
    store.set_many(dict.fromkeys(keys, 1))
    store.set("expired", 1, ttl=1e-6)
    assert set(store.get_keys()) == keys
    assert len(store.get_keys("0?5")) == 3
    store.flush()
    assert postgres_server.execute("SELECT count(*) FROM kvs") == [(0,)]


def test_more_than_a_gigabyte_is_refused_unsent(store: PostgresqlKVS) -> None:
    with pytest.raises(ValueTooLarge, match="1,000,000,000 bytes"):
        store.raw_set("key", bytes(1_000_000_001), None)


def test_ttl_beyond_the_last_timestamp(store: PostgresqlKVS) -> None:
    store.set("key", 1, ttl=1e18)
    assert store.ttl_of("key") > 1e11
    assert store.expire("key", 1e300)
    assert store.get("key") == 1


def test_counter_goes_beyond_64_bits(store: PostgresqlKVS) -> None:
    assert store.incr("n", 2**63) == 2**63
    assert store.decr("n", 2**64) == -(2**63)
    assert store.get("n") == -(2**63)


@pytest.mark.parametrize("data", ["1.5", "NaN", "1e3", " 1", "", "-", "\0", "9" * 100, b"\xff"])
def test_counting_a_value_that_is_not_an_integer(store: PostgresqlKVS, data: str | bytes) -> None:
    store.raw_set("n", data, 300)
    with pytest.raises(KVSError, match="the value at this key is not an integer"):
        store.incr("n")
    assert store.raw_get("n") == data


def test_swap_that_loses_a_race_sees_the_winner(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    """The winner commits while the statement waits, after its view of the table was taken."""
    store.raw_set("key", "old", 300)
    with ThreadPoolExecutor() as pool:
        with locked(postgres_server, "UPDATE kvs SET data = 'winner'"):
            swap = pool.submit(store.raw_swap, "key", Stored("old"), "mine", 300)
            wait_for_blocked(postgres_server)
        assert swap.result() == (False, Stored("winner"))


def test_insert_that_loses_a_race_sees_the_winner(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    insert = "INSERT INTO kvs (key, is_text, data) VALUES ('p::key', true, 'winner')"
    with ThreadPoolExecutor() as pool:
        with locked(postgres_server, insert):
            swap = pool.submit(store.raw_swap, "key", None, "mine", 300)
            wait_for_blocked(postgres_server)
        assert swap.result() == (False, Stored("winner"))


def test_same_data_by_another_writer_is_a_conflict(store: PostgresqlKVS) -> None:
    store.raw_set("key", "theirs", 300)
    assert store.raw_swap("key", Stored("old"), "theirs", 300) == (False, Stored("theirs"))


def test_renewal_is_left_out_while_most_is_left(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    def renewed(left: float, ttl: float) -> bool:
        store.raw_set("key", "data", left)
        before = postgres_server.execute("SELECT xmin FROM kvs")
        assert store.raw_load("key", renew=ttl) == Stored("data")
        assert store.ttl_of("key") == pytest.approx(ttl, rel=0.1, abs=5)
        return postgres_server.execute("SELECT xmin FROM kvs") != before

    assert not renewed(295, 300)
    assert renewed(200, 300)
    assert renewed(300, 100)  # shorter than what is left
    assert not renewed(86400 - 30, 86400)
    assert renewed(86400 - 90, 86400)  # more than a minute ago


def statements_logged(server: PostgresServer) -> int:
    """Return how many there were, without those that remove expired rows after some writes."""
    lines = [line for line in server.log.splitlines() if "pyramid_kvs>LOG:" in line]
    return len([line for line in lines if "ctid" not in line])


def test_one_statement_for_each_operation(
    own_postgres: Callable[..., PostgresServer], make: Make
) -> None:
    server = own_postgres(log_statement="all", log_line_prefix="%a>")
    driver = make(server, pool_size=1)
    driver.initialize_schema()
    stored = Stored("1")
    operations: list[Callable[[], object]] = [
        lambda: driver.get("a"),
        lambda: driver.set("a", 1),
        lambda: driver.add("a", 1),
        lambda: driver.incr("a"),
        lambda: driver.expire("a", 30),
        lambda: driver.ttl_of("a"),
        lambda: driver.raw_load("a", renew=300),
        lambda: driver.raw_swap("a", stored, "1", 300),
        lambda: driver.raw_swap("b", None, "1", 300),
        lambda: driver.raw_swap("b", stored, "2", 300),
        lambda: driver.raw_swap("b", stored, None, 300),
        lambda: driver.delete("a"),
        lambda: driver.get_many(["a", "b"]),
        lambda: driver.raw_load_many(["a", "b"]),
        lambda: driver.set_many({"a": 1, "b": 2}),
        lambda: driver.delete_many(["a", "b"]),
        lambda: driver.get_keys(),
    ]
    for operation in operations:
        operation()
        before = statements_logged(server)
        operation()
        assert statements_logged(server) == before + 1, server.log[-2000:]


def test_many_keys_are_several_statements(
    store: PostgresqlKVS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One statement for all of them would take longer than statement_timeout."""
    sent: list[int] = []
    run = type(store._client).run

    def note(client: Any, statement: Any, params: Any = (), repeatable: bool = False) -> Any:
        sent.append(sum(map(len, filter(None, params))))
        return run(client, statement, params, repeatable)

    monkeypatch.setattr(type(store._client), "run", note)
    values = {f"key{number}": number for number in range(12_000)}
    store.set_many(values)
    assert store.get_many(values) == values
    store.delete_many(values)
    assert len(sent) == 9
    assert store.get_keys() == []
    sent.clear()
    store.set_many({f"large{number}": "x" * 3_000_000 for number in range(5)})
    assert len(sent) == 3
    assert max(sent) < 8_001_000
