"""How many commands an operation sends, and how many replies it waits for."""

from __future__ import annotations

from pyramid_kvs.drivers.redis import Script
from pyramid_kvs.kvs import Stored
from pyramid_kvs.ratelimit.counting import LimitCheck, scripts
from pyramid_kvs.ratelimit.counting.rules import Rule
from tests.drivers.redis.support import driver_of


def test_many_keys(driver, server):
    keys = {f"k{number}": number for number in range(12_000)}
    driver.set_many(keys)
    assert driver.get_many(keys) == keys
    assert sorted(driver.get_keys()) == sorted(keys)
    driver.delete_many(list(keys)[:6000])
    assert server.command("DBSIZE") == 6000
    driver.flush()
    assert server.command("DBSIZE") == 0


def test_no_command_blocks_the_server(driver, server):
    driver.set_many({f"k{number}": number for number in range(50)})
    server.reset_calls()
    driver.get_keys("k1*")
    driver.flush()
    assert set(server.calls()) == {"scan", "unlink"}


def test_commands(driver, server):
    """One command for each operation. Those in a script cost no round trip."""
    driver.set("key", 1)
    for operation, expected in [
        (lambda: driver.get("key"), {"get": 1}),
        (lambda: driver.get("missing"), {"get": 1}),
        (lambda: driver.set("key", 1), {"set": 1}),
        (lambda: driver.add("key", 1), {"set": 1}),
        (lambda: driver.delete("other"), {"getdel": 1}),
        (lambda: driver.get_many(map(str, range(100))), {"mget": 1}),
        (lambda: driver.delete_many(map(str, range(100))), {"unlink": 1}),
        (lambda: driver.raw_load("key", renew=9), {"getex": 1}),
        (lambda: driver.raw_load_many(["key", "b"]), {"mget": 1}),
        (lambda: driver.ttl_of("key"), {"pttl": 1}),
        (lambda: driver.expire("key", 9), {"pexpire": 1}),
    ]:
        server.reset_calls()
        operation()
        assert server.calls() == expected


def test_scripts_are_one_call(driver, server):
    driver.incr("count")
    driver.update("key", lambda value: 1)
    for operation, inside in [
        (lambda: driver.incr("count"), {"incrby": 1, "pttl": 1}),
        (lambda: driver.incr("count2"), {"incrby": 1, "pttl": 1, "pexpire": 1}),
        (lambda: driver.raw_swap("key", Stored(b"1"), b"2", 9), {"get": 1, "set": 1}),
        (lambda: driver.raw_swap("key", Stored(b"9"), b"2", 9), {"get": 1}),
        (lambda: driver.raw_swap("key", Stored(b"2"), None, 9), {"get": 1, "del": 1}),
    ]:
        server.reset_calls()
        operation()
        assert server.calls() == {"evalsha": 1, **inside}


def test_set_many_is_one_send(driver, server):
    """The server reads all 100 commands at once, and the driver then reads all replies."""
    reads = server.command("INFO", "stats")["total_reads_processed"]
    driver.set_many({str(number): number for number in range(100)})
    assert server.calls()["set"] == 100
    between = server.command("INFO", "stats")["total_reads_processed"] - reads
    assert between <= 1 + 2 + 2  # of the driver, of calls(), and of the two INFO
    assert driver.get("99") == 99


def test_update_without_conflict_is_two(driver, server):
    driver.update("key", lambda value: 1)
    server.reset_calls()
    driver.update("key", lambda value: value + 1)
    assert server.calls() == {"get": 2, "evalsha": 1, "set": 1}  # one of them in the script


def test_lost_script_is_sent_again(driver, server):
    assert driver.incr("count") == 1
    server.command("SCRIPT", "FLUSH")
    assert driver.incr("count") == 2
    server.reset_calls()
    assert driver.incr("count") == 3
    assert "eval" not in server.calls()


def test_lost_script_of_a_swap_is_sent_again(driver, server):
    """The most frequent swap is packed apart from other scripts, and sends the source too."""
    driver.set("key", 1)
    server.command("SCRIPT", "FLUSH")
    first = driver.raw_load("key")
    assert driver.raw_swap("key", first, b"2", 60).done
    server.reset_calls()
    lost = driver.raw_swap("key", first, "3", 60)
    assert not lost.done
    assert lost.current.data == b"2"
    assert driver.raw_swap("key", lost.current, "4", 60).done
    assert driver.get("key") == 4
    assert server.calls() == {"evalsha": 2, "get": 3, "set": 1}  # two of them in the script


def test_a_lost_script_costs_one_more_command(driver, server):
    rule = Rule("fixed-window", 5, 60_000, 5)
    calls = {
        "swap": lambda: driver.raw_swap("key", Stored(b"1"), b"1", 60),
        "a limit": lambda: scripts.hit(driver, [LimitCheck(rule, "limit", "limit")]),
    }
    for name, call in calls.items():
        driver.set("key", 1)
        server.command("SCRIPT", "FLUSH")
        server.reset_calls()
        call()
        found = server.calls()
        assert (found.get("evalsha"), found.get("eval")) == (1, 1), name


def test_own_script(driver):
    script = Script("return {KEYS[1], ARGV[1], 7, false}")
    assert driver.run_script(script, [b"key"], [b"\r\n"]) == [b"key", b"\r\n", 7, None]


def test_no_connection_before_use(server):
    server.command("PING")
    received = server.command("INFO", "stats")["total_connections_received"]
    driver_of(server)
    assert server.command("INFO", "stats")["total_connections_received"] == received


def test_a_script_without_keys(driver):
    assert driver.run_script(Script("return ARGV[1]"), [], [b"x"]) == b"x"
