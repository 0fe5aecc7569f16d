"""The driver for a cluster: which class it is, which node it asks, and how often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyramid_kvs.drivers.redis import RedisKVS
from pyramid_kvs.drivers.redis.cluster import RedisClusterKVS
from pyramid_kvs.drivers.redis.cluster.topology import slot_of as driver_slot_of
from pyramid_kvs.exceptions import KVSError, KVSNotSupported, KVSUnavailable
from pyramid_kvs.kvs import KVS, Script, pack_arguments
from tests.drivers.redis.support import works
from tests.servers import RedisCluster, RedisServer, certificate, free_port, slot_of

KEYS = [f"key{number}" for number in range(30)]


@pytest.fixture
def driver(redis_cluster: RedisCluster) -> Iterator[KVS]:
    """A driver that knows the map and has connections; the counts of the cluster are at zero."""
    driver = KVS("redis", {"url": redis_cluster.url}, key_prefix="test:")
    driver.set_many(dict.fromkeys(KEYS, 1))
    driver.flush()
    redis_cluster.reset_calls()
    yield driver
    driver.close()


def test_the_url_decides_the_class(redis_cluster, redis_server):
    assert type(KVS("redis", {"url": redis_cluster.url})) is RedisClusterKVS
    assert type(RedisKVS("redis", {"url": redis_cluster.url})) is RedisClusterKVS
    assert type(KVS("redis", {"url": redis_server.url})) is RedisKVS


def test_subclasses(redis_cluster):
    class Single(RedisKVS):
        pass

    class Cluster(RedisClusterKVS):
        pass

    with pytest.raises(ValueError, match="subclass of RedisClusterKVS"):
        Single("redis", {"url": redis_cluster.url})
    assert works(Cluster("redis", {"url": redis_cluster.url}))
    with pytest.raises(ValueError, match=r"redis\+cluster://h1:6379"):
        Cluster("redis", {"url": "redis://localhost"})


def test_nothing_is_asked_before_the_first_call():
    driver = KVS("redis", {"url": f"redis+cluster://127.0.0.1:{free_port()}"})
    assert "RedisClusterKVS" in repr(driver)
    with pytest.raises(KVSUnavailable):
        driver.get("key")


def test_one_seed_is_enough(redis_cluster):
    replica = redis_cluster.nodes[-1]
    assert works(KVS("redis", {"url": f"redis+cluster://127.0.0.1:{replica.port}"}))


def test_seeds_that_do_not_answer(redis_cluster):
    seeds = f"127.0.0.1:{free_port()},127.0.0.1:{redis_cluster.nodes[0].port}"
    driver = KVS("redis", {"url": f"redis+cluster://{seeds}"})
    driver.set("key", 1)
    assert driver.get("key") == 1


def test_each_key_is_at_its_node(driver, redis_cluster):
    for key in KEYS:
        driver.set(key, key)
    for node in redis_cluster.primaries():
        found = {key.decode() for key in node.command("KEYS", "*")}
        assert found == {
            f"test:{key}" for key in KEYS if redis_cluster.primary_of(f"test:{key}") is node
        }
        assert found
    assert redis_cluster.calls()["set"] == len(KEYS)


def test_one_call_is_one_command(driver, redis_cluster):
    driver.set("key", 1)
    assert driver.get("key") == 1
    assert redis_cluster.calls() == {"set": 1, "get": 1}


def test_the_map_is_asked_once(redis_cluster):
    driver = KVS("redis", {"url": redis_cluster.url})
    for key in KEYS:
        driver.get(key)
    asked = [node.calls().get("cluster|slots", 0) for node in redis_cluster.nodes]
    driver.get_many(KEYS)
    assert [node.calls().get("cluster|slots", 0) for node in redis_cluster.nodes] == asked


def test_many_keys(driver, redis_cluster):
    driver.set_many({key: key for key in KEYS})
    assert driver.get_many([*KEYS, "none"]) == {key: key for key in KEYS}
    assert set(driver.raw_ttl_many(KEYS)) == set(KEYS)
    driver.delete_many([*KEYS, "none"])
    assert driver.get_many(KEYS) == {}
    number = len(KEYS)
    assert redis_cluster.calls() == {
        "set": number,
        "get": 2 * number + 1,
        "pttl": number,
        "unlink": number + 1,
    }


def test_a_script_that_a_node_does_not_know(driver, redis_cluster):
    for key in KEYS:
        assert driver.incr(key) == 1
    for key in KEYS:
        assert driver.incr(key) == 2
    calls = redis_cluster.calls()
    assert calls["eval"] == 3
    assert calls["evalsha"] == 2 * len(KEYS)


def test_several_scripts_at_once(driver, redis_cluster):
    """One of them fails, and the others have their replies."""
    count = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    redis_cluster.command("SET", "test:key3", "no number")
    calls = [(count, [b"test:" + key.encode()], pack_arguments([b"5"])) for key in KEYS]
    for number in (1, 2):
        replies = driver.run_many(calls)
        failed = replies.pop(3)
        assert type(failed) is KVSError
        assert replies == [5 * number] * (len(KEYS) - 1)


def test_keys_of_a_script_in_different_slots(driver):
    with pytest.raises(KVSNotSupported, match="not in the same slot"):
        driver.run_script(Script("return 1"), [b"a", b"b"], [])


def test_hash_tags(driver, redis_cluster):
    driver.set_many({f"{{user}}{key}": key for key in KEYS})
    assert len(driver.get_many([f"{{user}}{key}" for key in KEYS])) == len(KEYS)
    assert redis_cluster.primary_of("{user}").command("DBSIZE") == len(KEYS)


def test_claims_of_keys_with_braces(driver):
    for key in ("a", "{a}", "a{", "}a", "x{a}y{b}", "{}a"):
        claim = driver.raw_claim(key, 0, 9)
        assert claim.owner
        assert driver.raw_claim(key, 0, 9).owner is None
        driver.raw_release(key, claim.owner, 60)
        assert driver.raw_claim(key, 0, 9).owner is None
        driver.raw_end_pause(key)
        assert driver.raw_claim(key, 0, 9).owner


def test_check_asks_each_primary(driver, redis_cluster):
    driver.check()
    assert all(node.calls()["getdel"] == 1 for node in redis_cluster.primaries())
    places = [f"127.0.0.1:{node.port}" for node in redis_cluster.primaries()]
    assert driver.check_nodes() == dict.fromkeys(places)


def test_check_nodes_tells_which_one_does_not_serve(own_redis_cluster):
    cluster = own_redis_cluster(
        "--maxmemory-policy", "noeviction", "--cluster-require-full-coverage", "no", replicas=0
    )
    driver = KVS("redis", {"url": cluster.url})
    assert driver.ping()
    full, lost, well = cluster.primaries()
    full.command("CONFIG", "SET", "maxmemory", "1")
    lost.kill()
    found = driver.check_nodes()
    assert "maxmemory" in found[f"127.0.0.1:{full.port}"]
    assert found[f"127.0.0.1:{lost.port}"]
    assert found[f"127.0.0.1:{well.port}"] is None
    assert driver.ping() is False
    for node in (full, well):
        node.kill()
    driver = KVS("redis", {"url": cluster.url})
    assert set(driver.check_nodes()) == {f"127.0.0.1:{node.port}" for node in cluster.nodes}
    assert None not in driver.check_nodes().values()


def test_a_prefix_with_a_hash_tag_has_one_node(redis_cluster):
    driver = KVS("redis", {"url": redis_cluster.url}, key_prefix="{app}:")
    port = redis_cluster.primary_of("{app}").port
    assert driver.check_nodes() == {f"127.0.0.1:{port}": None}


def test_keys_and_flush_of_all_nodes(driver, redis_cluster):
    driver.set_many(dict.fromkeys(KEYS, 1))
    redis_cluster.command("SET", "other", 1)
    assert sorted(driver.get_keys()) == sorted(KEYS)
    assert sorted(driver.get_keys("key1?")) == [f"key1{n}" for n in range(10)]
    driver.flush()
    assert driver.get_keys() == []
    assert redis_cluster.command("GET", "other") == b"1"


def test_what_observers_see(driver, redis_cluster):
    driver.get_many(KEYS)
    pools = driver.connection_pools()
    assert sum(pool.counts().idle for pool in pools) >= 3
    assert driver.addresses() == [f"127.0.0.1:{node.port}" for node in redis_cluster.nodes]


def test_places_of_two_settings(redis_cluster):
    one = KVS("redis", {"url": redis_cluster.url})
    other = KVS("redis", {"url": f"redis+cluster://127.0.0.1:{redis_cluster.nodes[2].port}"})
    assert one.places() & other.places()


def test_a_server_that_is_not_in_a_cluster(redis_server: RedisServer):
    driver = KVS("redis", {"url": f"redis+cluster://127.0.0.1:{redis_server.port}"})
    for _ in range(2):
        with pytest.raises(KVSNotSupported, match="redis://"):
            driver.get("key")
    assert driver.ping() is False


@pytest.mark.parametrize("options", [{"protocol": 3}, {"socket_read_size": 100}])
def test_connections_of_other_kinds(redis_cluster, options):
    driver = KVS("redis", {"url": redis_cluster.url, **options})
    assert works(driver)
    slot, source = slot_of("key"), redis_cluster.primary_of("key")
    target = next(node for node in redis_cluster.primaries() if node is not source)
    driver.set("key", "x" * 1000)
    redis_cluster.begin_move([slot], source, target)
    redis_cluster.move_keys([slot], source, target)
    assert driver.get_many(["key", "none"]) == {"key": "x" * 1000}
    redis_cluster.end_move([slot], target)
    assert driver.get("key") == "x" * 1000
    with pytest.raises(KVSError):
        driver.run_script(Script("return redis.call('LPUSH', KEYS[1], 1)"), [b"key"], [])


def test_timeouts_that_never_end(redis_cluster):
    options = {"socket_timeout": None, "socket_connect_timeout": None}
    assert works(KVS("redis", {"url": redis_cluster.url, **options}))


def test_database(redis_cluster):
    with pytest.raises(ValueError, match="database 0"):
        KVS("redis", {"url": redis_cluster.url + "/1"})


@pytest.mark.parametrize("with_tls", [False, True])
def test_password_and_user(own_redis_cluster, tmp_path, with_tls):
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    tls = certificate(tmp_path) if with_tls else None
    cluster = own_redis_cluster(requirepass="s3cret", replicas=0, tls=tls)
    trust = {"ssl_ca_certs": str(tmp_path / "cert.pem")} if with_tls else {}
    assert works(KVS("redis", {"url": cluster.url, **trust}))
    for node in cluster.nodes:
        node.command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all")
    assert works(KVS("redis", {"url": cluster.url.replace(":s3cret@", "app:pw@"), **trust}))
    driver = KVS("redis", {"url": cluster.url.replace("s3cret", "s3cr3t"), **trust})
    with pytest.raises(KVSUnavailable) as raised:
        driver.get("key")
    assert "s3cr" not in str(raised.value)
    if with_tls:
        with pytest.raises(KVSUnavailable, match=r"(?i)certificate"):
            KVS("redis", {"url": cluster.url}).get("key")


def test_slots_are_those_of_redis(driver, redis_cluster):
    node = redis_cluster.nodes[0]
    for key in ("", "a", "{a}b", "a{b}c", "{}a", "{a", "a}{b}", "é" * 50):
        expected = node.command("CLUSTER", "KEYSLOT", key)
        assert slot_of(key) == expected
        assert driver_slot_of(key.encode()) == expected
