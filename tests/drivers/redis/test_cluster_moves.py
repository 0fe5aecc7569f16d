"""Slots that move while the driver uses them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.drivers.redis.fake import FakeRedis, fake_redis
from tests.drivers.redis.support import failure
from tests.servers import LOOPBACK, ClusterNode, RedisCluster, slot_of

KEYS = [f"{{a}}{number}" for number in range(20)]
SLOT = slot_of("{a}")

#: What a call may take, and as much again for a busy machine.
LIMIT = 2.0


class Move:
    """The slot of ``{a}`` moves from one primary to another, step by step."""

    def __init__(self, cluster: RedisCluster) -> None:
        self.cluster = cluster
        self.source = cluster.primary_of(SLOT)
        self.target = next(node for node in cluster.primaries() if node is not self.source)

    def begin(self) -> None:
        self.cluster.begin_move([SLOT], self.source, self.target)

    def move_keys(self, *keys: str) -> None:
        """Move some keys, or all."""
        place = (LOOPBACK, self.target.port)
        if keys:
            self.source.command("MIGRATE", *place, "", 0, 5000, "KEYS", *keys)
        else:
            self.cluster.move_keys([SLOT], self.source, self.target)

    def end(self) -> None:
        self.move_keys()
        self.cluster.end_move([SLOT], self.target)


@pytest.fixture
def move(redis_cluster: RedisCluster) -> Iterator[Move]:
    move = Move(redis_cluster)
    yield move
    for node in redis_cluster.primaries():  # after a test that failed in between
        node.command("CLUSTER", "SETSLOT", SLOT, "STABLE")


@pytest.fixture
def driver(move: Move) -> Iterator[KVS]:
    """A driver that knows the map; the counts of the cluster are at zero."""
    driver = KVS("redis", {"url": move.cluster.url}, ttl=None)
    driver.set_many({**dict.fromkeys(KEYS, 1), "b": 1, "c": 1})
    driver.incr("{a}count", ttl=60)
    move.cluster.reset_calls()
    yield driver
    driver.close()


def refusals(node: ClusterNode) -> int:
    """Return how often a node refused because a key is elsewhere."""
    errors = node.command("INFO", "errorstats")
    found = [entry for name, entry in errors.items() if name[10:] in ("MOVED", "ASK")]
    # redis-py 5.0 does not read the entry
    return sum(int(e["count"] if isinstance(e, dict) else e.removeprefix("count=")) for e in found)


def operations(driver: KVS) -> list[Callable[[], Any]]:
    key = "{a}1"
    return [
        lambda: driver.get(key),
        lambda: driver.set(key, 2),
        lambda: driver.get_many([*KEYS, "b", "c"]),
        lambda: driver.ttl_of(key),
        lambda: driver.expire(key, 60),
        lambda: driver.raw_expire(key, None),
        lambda: driver.raw_load(key, 60),
        lambda: driver.update(key, lambda value: 3),
        lambda: driver.set_many({key: 4, "b": 4}),
        lambda: driver.add("{a}new", 1),
        lambda: driver.incr("{a}count", 1, 60),
        lambda: driver.raw_claim(key, 1, 9),
        lambda: driver.delete("{a}new"),
        lambda: driver.get_keys("{a}1?"),
        lambda: driver.check(),
        lambda: driver.delete_many(["{a}2", "b"]),
        lambda: driver.flush(),
    ]


@pytest.mark.parametrize("number", range(17))
def test_the_old_primary_refuses(driver, move, number):
    """Each operation is sent again to the new one, also those that may not run twice."""
    move.begin()
    move.end()
    move.source.reset_calls()
    result = operations(driver)[number]()
    other = KVS("redis", {"url": move.cluster.url}, ttl=None)
    if number == 2:
        assert result == dict.fromkeys([*KEYS, "b", "c"], 1)
    if number == 10:
        assert result == 2 == other.get("{a}count")
    assert refusals(move.source) <= {2: len(KEYS), 5: 2}.get(number, 1)
    driver.get("{a}1")
    move.source.reset_calls()
    driver.get("{a}1")
    assert refusals(move.source) == 0


@pytest.mark.parametrize("number", range(17))
def test_the_keys_are_at_the_new_primary_already(driver, move, number):
    """The old one has the slot, and tells where the key is."""
    move.begin()
    move.move_keys()
    if number == 11:  # a script with two keys has to wait until the slot has moved
        move.end()
    result = operations(driver)[number]()
    if number == 2:
        assert result == dict.fromkeys([*KEYS, "b", "c"], 1)
    if number == 10:
        assert result == 2
    if number != 11:
        move.end()


def test_one_more_round_trip_to_a_key_that_has_moved(driver, move):
    move.begin()
    move.move_keys("{a}1")
    assert driver.get("{a}1") == driver.get("{a}2") == 1
    calls = {"get": 2, "asking": 1, "migrate": 1, "restore-asking": 1}
    assert move.cluster.calls() == calls
    driver.get("{a}1")
    assert move.target.calls()["asking"] == 2, "the slot has not moved yet"
    move.end()


def test_a_counter_counts_once(driver, move):
    counts = [driver.incr("{a}count", ttl=60)]
    move.begin()
    counts.append(driver.incr("{a}count", ttl=60))
    move.move_keys()
    counts.append(driver.incr("{a}count", ttl=60))
    move.end()
    counts.append(driver.incr("{a}count", ttl=60))
    assert counts == [2, 3, 4, 5]


def test_only_the_commands_that_were_refused_are_sent_again(driver, move):
    move.begin()
    move.end()
    move.cluster.reset_calls()
    driver.get_many([*KEYS, "b", "c"])
    assert move.cluster.calls()["get"] == len(KEYS) + 2, "a refused command is not counted"
    assert refusals(move.source) == len(KEYS)


def test_some_keys_of_a_batch_have_moved(driver, move):
    move.begin()
    move.move_keys(*KEYS[:7])
    assert driver.get_many(KEYS) == dict.fromkeys(KEYS, 1)
    driver.set_many(dict.fromkeys([*KEYS, "{a}new"], 2))
    assert driver.get_many([*KEYS, "{a}new"]) == dict.fromkeys([*KEYS, "{a}new"], 2)
    assert move.target.calls()["asking"] == 7 + 7 + 1 + 7 + 1
    move.end()
    assert driver.get_many(KEYS) == dict.fromkeys(KEYS, 2)


def test_a_script_waits_until_all_of_its_keys_have_moved(driver, move):
    """The key has not moved, and that of its claim is not there: the node says TRYAGAIN."""
    move.begin()
    claims: list[Any] = []
    thread = threading.Thread(target=lambda: claims.append(driver.raw_claim("{a}1", 1, 9)))
    thread.start()
    time.sleep(0.2)
    assert claims == []
    move.end()
    thread.join()
    assert claims[0].data == b"1"


def test_a_script_whose_keys_stay_apart(driver, move, caplog):
    """The call ends in time, and the node is not left alone."""
    move.begin()
    began = time.monotonic()
    with pytest.raises(KVSUnavailable, match="Multiple keys"):
        driver.raw_claim("{a}1", 1, 9)
    assert time.monotonic() - began < LIMIT
    assert driver.get("{a}1") == 1
    assert caplog.messages == []
    move.end()


def test_no_key_is_lost_from_a_list(driver, move):
    """Slots move while keys are listed, each at most once. All keys are found, once."""
    keys = {f"key{number}" for number in range(12_000)}
    driver.set_many(dict.fromkeys(keys, 1))
    primaries = move.cluster.primaries()
    slots = {slot_of(key) for key in keys}

    def shuffle(first: int, is_over: threading.Event) -> None:
        for number, slot in enumerate(slots, first):
            if is_over.is_set():
                return
            move.cluster.move_slots([slot], primaries[number % 3])

    for first in range(20):
        is_over = threading.Event()
        thread = threading.Thread(target=shuffle, args=(first, is_over))
        thread.start()
        try:
            found = driver.get_keys("key*")
        finally:
            is_over.set()
            thread.join()
        assert len(found) == len(keys)
        assert set(found) == keys
    driver.flush()
    assert move.cluster.everywhere("DBSIZE") == [0, 0, 0]


def test_a_flush_while_slots_move(driver, move):
    driver.set_many({f"key{number}": 1 for number in range(3000)})
    slots = [slot_of(f"key{number}") for number in range(3000)]
    targets = move.cluster.primaries()
    thread = threading.Thread(
        target=lambda: move.cluster.move_slots(sorted(set(slots))[:300], targets[1])
    )
    thread.start()
    driver.flush()
    thread.join()
    assert move.cluster.everywhere("DBSIZE") == [0, 0, 0]


def test_connections_to_nodes_that_left_are_closed(own_redis_cluster):
    cluster = own_redis_cluster(primaries=4, replicas=0)
    gone, *others = cluster.nodes
    driver = KVS("redis", {"url": cluster.url.split(",")[1].join(["redis+cluster://", ""])})
    keys = {f"key{number}": number for number in range(100)}
    driver.set_many(keys)
    assert sum(b"fd=" in line for line in gone.command("CLIENT", "LIST").splitlines()) == 2
    cluster.move_slots(range(4096), others[0], together=512)
    for node in others:
        node.command("CLUSTER", "FORGET", gone.node_id)
    gone.command("CLUSTER", "RESET")
    time.sleep(0.3)  # the map is asked for again after a quarter of a second
    assert driver.get_many(keys) == keys
    for _ in range(10):
        driver.get_keys()
    assert gone.command("INFO", "clients")["connected_clients"] == 1
    assert {node.address[1] for node in driver._topology.primaries()} == {
        node.port for node in others
    }


# -- nodes that answer what no redis should ---------------------------------------------------


def slots_reply(*ports: int, host: bytes = b"127.0.0.1") -> bytes:
    """Return a map with equal parts of the slots for some ports."""
    share, entries = 16384 // len(ports), b""
    for number, port in enumerate(ports):
        last = 16383 if number == len(ports) - 1 else (number + 1) * share - 1
        word = b"$%d\r\n%b\r\n" % (len(host), host) if host else b"$-1\r\n"
        node = b"*3\r\n%b:%d\r\n$2\r\nid\r\n" % (word, port)
        entries += b"*3\r\n:%d\r\n:%d\r\n%b" % (number * share, last, node)
    return b"*%d\r\n%b" % (len(ports), entries)


@pytest.fixture
def node() -> Iterator[FakeRedis]:
    """A node that has all slots."""
    with fake_redis() as fake:
        fake.answers[b"CLUSTER"] = lambda *_: slots_reply(fake.port)
        yield fake


def cluster_driver(*nodes: FakeRedis, **kwargs: Any) -> KVS:
    places = ",".join(f"{LOOPBACK}:{node.port}" for node in nodes)
    return KVS("redis", {"url": f"redis+cluster://{places}", **kwargs}, ttl=None)


@pytest.mark.parametrize("host", [b"", b"?"])
def test_a_node_that_does_not_know_its_address(node, host):
    """Its clients use the one that they know."""
    node.answers[b"CLUSTER"] = lambda *_: slots_reply(node.port, host=host)
    node.answers[b"INCRBY"] = lambda *_: b":1\r\n"
    assert cluster_driver(node).incr("count") == 1


def test_moved_without_a_host(node):
    with fake_redis() as other:
        node.answers[b"INCRBY"] = lambda *_: b"-MOVED 5 :%d\r\n" % other.port
        other.answers[b"INCRBY"] = lambda *_: b":7\r\n"
        assert cluster_driver(node).incr("count") == 7


def test_nodes_that_send_a_call_to_and_fro(node):
    """The call ends in time, and pauses between the attempts.

    On a busy machine, the last attempt may begin just before the end, and get no answer.
    """
    with fake_redis() as other:
        other.answers[b"CLUSTER"] = node.answers[b"CLUSTER"]
        for one, two in ((node, other), (other, node)):
            answer = b"-MOVED 5 127.0.0.1:%d\r\n" % two.port
            one.answers[b"INCRBY"] = lambda *_, answer=answer: answer
        began = time.monotonic()
        with pytest.raises(KVSUnavailable, match=r"the key kept moving|no answer in time"):
            cluster_driver(node).incr("count")
        assert time.monotonic() - began < LIMIT
        assert 2 < node.commands.count(b"INCRBY") + other.commands.count(b"INCRBY") < 30


@pytest.mark.parametrize(
    "refusal",
    [
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-CLUSTERDOWN Hash slot not served\r\n",
        b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
    ],
)
def test_a_refusal_that_passes(node, refusal):
    """Nothing ran, so that a counter is sent again too."""
    replies = [b":1\r\n", refusal, refusal, refusal]
    node.answers[b"INCRBY"] = lambda *_: replies.pop()
    driver = cluster_driver(node)
    assert driver.incr("count") == 1
    assert replies == []


@pytest.mark.parametrize(
    "refusal", [b"-LOADING data\r\n", b"-NOAUTH who\r\n", b"-ERR max number of clients reached\r\n"]
)
def test_a_node_that_serves_nobody(node, refusal):
    """For redis-py it is a failure to connect, and not the refusal of a command."""
    node.answers[b"GET"] = node.answers[b"PTTL"] = lambda *_: refusal
    driver = cluster_driver(node)
    for operation in (
        lambda: driver.get("key"),
        lambda: driver.get_many(["key", "other"]),
        lambda: driver.raw_ttl_many(["key"]),
    ):
        assert isinstance(failure(operation), KVSUnavailable)


def test_a_refusal_that_lasts(node):
    """One call waits for its whole time, and others fail at once for a second."""
    node.answers[b"GET"] = lambda *_: b"-CLUSTERDOWN The cluster is down\r\n"
    driver = cluster_driver(node)
    began = time.monotonic()
    with pytest.raises(KVSUnavailable, match="is down"):
        driver.get("key")
    assert time.monotonic() - began < LIMIT
    sent = node.commands.count(b"GET")
    assert sent < 30
    for _ in range(20):
        with pytest.raises(KVSUnavailable):
            driver.get("key")
    assert node.commands.count(b"GET") == sent
    node.answers[b"GET"] = lambda *_: b"$1\r\n1\r\n"
    time.sleep(1.05)
    assert driver.get("key") == 1
    assert driver.get("key") == 1


def test_a_node_that_trickles_the_map(node):
    """The call ends within its time, and the next one asks another node."""
    with fake_redis() as slow:
        slow.pause = 0.1
        began = time.monotonic()
        driver = cluster_driver(slow, node)
        node.answers[b"GET"] = lambda *_: b"$1\r\n1\r\n"
        assert driver.get("key") == 1
        assert time.monotonic() - began < LIMIT


@pytest.mark.parametrize(
    "reply",
    [
        *(b"+OK\r\n", b"*1\r\n*1\r\n:5\r\n", b"*0\r\n", b":1\r\n", slots_reply(1, host=b"\xff")),
        # some slots without a node
        b"*2\r\n*2\r\n:0\r\n:99\r\n" + slots_reply(1).removeprefix(b"*1\r\n"),
    ],
)
def test_a_map_that_cannot_be_read(node, reply):
    node.answers[b"CLUSTER"] = lambda *_: reply
    with pytest.raises(KVSError):
        cluster_driver(node).get("key")


def test_a_node_that_had_little_time_is_not_left_alone(node):
    """Another node was silent first. This one answers after a quarter of a second."""

    def slots(*_: bytes) -> bytes:
        time.sleep(0.25)
        return slots_reply(node.port)

    node.answers[b"CLUSTER"] = slots
    node.answers[b"GET"] = lambda *_: b"$1\r\n1\r\n"
    with fake_redis() as silent:
        silent.answers[b"CLUSTER"] = lambda *_: b""
        driver = cluster_driver(silent, node, socket_timeout=0.6, socket_connect_timeout=0.1)
        failed = failure(lambda: driver.get("key"))
        breakers = {item.address[1]: item.breaker for item in driver._topology.nodes()}
        assert breakers[silent.port].is_open
        assert failed
        assert not breakers[node.port].is_troubled
        time.sleep(0.3)  # the map is asked for again
        assert driver.get("key") == 1


def test_callers_share_one_question_for_the_map(node):
    """Eight threads start with nothing."""
    node.answers[b"GET"] = lambda *_: b"$1\r\n1\r\n"

    def slots(*_: bytes) -> bytes:
        time.sleep(0.1)
        return slots_reply(node.port)

    node.answers[b"CLUSTER"] = slots
    driver = cluster_driver(node)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(driver.get("k"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 8
    assert node.commands.count(b"CLUSTER") == 1
