"""``request.perlsess`` with ``"writable": true``: which changes are saved, and how."""

from __future__ import annotations

import datetime
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyramid.response import Response

from pyramid_kvs.exceptions import KVSError
from pyramid_kvs.storable import StorableError, freeze, nfreeze, thaw
from tests.perlsess.sites import Site
from tests.servers import MemcachedServer, RedisServer, need_perl
from tests.storable.perl import perl_dump, perl_image

SESSION = {"user": "ann", "count": 1, "cart": [{"sku": "a1"}]}
LOGGER = "pyramid_kvs.perlsess"


class Redis:
    """A writable site on redis, with one session."""

    def __init__(self, server: RedisServer, **more: Any) -> None:
        self.server = server
        setting = {"kvs": "redis", "kvs_kwargs": {"url": server.url}, "writable": True, **more}
        self.site = Site(setting)
        self.driver = self.site.driver
        self.store(SESSION)

    def store(self, session: Any, ttl: float | None = 600) -> None:
        """Store a session, as Perl would."""
        self.driver.raw_set("abc", nfreeze(session), ttl)

    def stored(self) -> Any:
        """Return the stored session, or None."""
        data = self.driver.raw_get("abc")
        return None if data is None else thaw(data)

    def change(self, change: Any, **options: Any) -> Any:
        """Send a request that changes the session."""
        return self.site.get(lambda request: change(request.perlsess), "abc", **options)


@pytest.fixture
def redis(redis_server: RedisServer) -> Redis:
    return Redis(redis_server)


def put(**values: Any) -> Any:
    return lambda session: session.update(values)


# -- what is saved


def test_set_and_delete(redis: Redis) -> None:
    def change(session: Any) -> None:
        session["user"] = "bob"
        session["new"] = {"list": [1, None, "ü"]}
        del session["count"]
        assert session.pop("cart") == SESSION["cart"]
        assert session.setdefault("other", 1) == 1

    redis.change(change)
    assert redis.stored() == {"user": "bob", "new": {"list": [1, None, "ü"]}, "other": 1}


def test_nested_change(redis: Redis) -> None:
    redis.change(lambda session: session["cart"][0].update(count=2))
    assert redis.stored() == {**SESSION, "cart": [{"sku": "a1", "count": 2}]}


def test_change_of_type_only(redis: Redis) -> None:
    redis.change(lambda session: session["cart"][0].update(sku=None))
    redis.change(put(count="1"))
    assert redis.stored() == {**SESSION, "cart": [{"sku": None}], "count": "1"}


def test_clear(redis: Redis) -> None:
    """A cleared session is stored as an empty hash. Only Perl can remove it."""
    redis.change(lambda session: session.clear())
    assert redis.stored() == {}


def test_no_change_no_write(redis: Redis) -> None:
    """Reading, and writing equal values, sends no second command."""
    redis.server.reset_calls()

    def look(session: Any) -> None:
        json.dumps(dict(session))
        session["user"] = "ann"
        session["cart"] = session["cart"]
        session["cart"][0]["sku"] = "a1"

    redis.change(look)
    assert redis.server.calls() == {"get": 1}


def test_read_only_costs_one_command(redis: Redis) -> None:
    redis.server.reset_calls()
    redis.change(lambda session: session["user"])
    assert redis.server.calls() == {"get": 1}


@pytest.mark.parametrize("kind", ["deep", "cyclic", "shared"])
def test_unusual_data_are_not_taken_for_changed(redis: Redis, kind: str) -> None:
    """Lists of 5,000 levels, and cyclic lists, are saved only if they changed."""
    value: list[Any] = []
    if kind == "deep":
        for _ in range(5000):
            value = [value]
    elif kind == "cyclic":
        value += [value, {"up": value}]
    else:
        value += [[1]] * 2
    redis.store({"odd": value, "n": 1})
    redis.server.reset_calls()
    redis.change(lambda session: len(session["odd"]))
    assert redis.server.calls() == {"get": 1}
    redis.change(put(n=2))
    assert redis.stored()["n"] == 2
    if kind != "deep":
        redis.change(lambda session: session["odd"].append("new"))
        found = redis.stored()["odd"]
        assert found[-1] == "new"
        assert (found[0] is found) == (kind == "cyclic")


# -- the form of the data


@pytest.mark.parametrize("function", [freeze, nfreeze])
def test_native_stays_native(redis: Redis, function: Any) -> None:
    redis.driver.raw_set("abc", function({"n": 2**40, "f": 0.1}), 60)
    redis.change(put(new=2**41))
    data = redis.driver.raw_get("abc")
    assert data[:2] == function({})[:2]
    assert int(thaw(data)["new"]) == 2**41


def test_classes_and_references_are_kept(redis: Redis) -> None:
    """Data that Python cannot represent stay in the image when another key changes."""
    perl = need_perl()
    script = r"{user => bless({n => 1}, 'My::User'), re => qr/x/, ref => \'text', raw => qq(\xff)}"
    redis.driver.raw_set("abc", perl_image(perl, script), 60)

    def change(session: Any) -> None:
        assert session["user"] == {"n": 1}
        session["seen"] = 1

    redis.change(change)
    expected = perl_dump(perl, perl_image(perl, script)).replace('"user"', '"seen" => 1,"user"')
    assert perl_dump(perl, redis.driver.raw_get("abc")) == expected


def test_changes_of_objects_are_refused(redis: Redis) -> None:
    """An object of a Perl class would lose its class, so a change to it raises an error."""
    script = "{user => bless({n => 1}, 'My::User'), other => 1}"
    image = perl_image(need_perl(), script)
    redis.driver.raw_set("abc", image, 60)
    with pytest.raises(
        StorableError, match="'user' changed, and it contains an object of class My::User"
    ):
        redis.change(lambda session: session["user"].update(n=2))
    assert redis.driver.raw_get("abc") == image
    redis.change(put(user={"n": 3}))
    assert redis.stored() == {"user": {"n": 3}, "other": 1}


def test_an_exception_view_sees_the_refusal(redis: Redis) -> None:
    """An exception view of the application can answer a change that cannot be written."""

    def add_view(config: Any) -> None:
        config.add_exception_view(lambda request: Response("refused", status=422), StorableError)

    site = Site(
        {"kvs": "redis", "kvs_kwargs": {"url": redis.server.url}, "writable": True},
        configure=add_view,
    )
    view = lambda request: request.perlsess.update(when=datetime.date(2026, 1, 1))  # noqa: E731
    assert site.get(view, "abc", status=422).text == "refused"


def test_values_that_perl_cannot_represent(redis: Redis) -> None:
    with pytest.raises(
        StorableError,
        match=r"value\['when'\]: Perl cannot represent a value of type datetime.date ",
    ):
        redis.change(put(now=1, when=datetime.date(2026, 1, 1)))
    with pytest.raises(TypeError, match="int"):
        redis.change(lambda session: session.update({5: 1}))
    assert redis.stored() == SESSION


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({}, r'"new" => ["gr\x{fc}n"],"\x{fc}" => "\x{263a}"'),
        ({"write_text": "bytes"}, r'"new" => ["gr\303\274n"],"\303\274" => "\342\230\272"'),
    ],
)
def test_strings_are_characters_or_bytes(
    redis_server: RedisServer, options: dict[str, Any], written: str
) -> None:
    """A Perl site without ``use utf8`` works with bytes."""
    redis = Redis(redis_server, **options)
    perl = need_perl()
    redis.driver.raw_set("abc", perl_image(perl, r'{a => "\xc3\xbc", b => "\x{fc}\x{263a}"}'), 60)

    def change(session: Any) -> None:
        assert session["a"] == "ü"
        session.update({"new": ["grün"], "ü": "☺"})

    redis.change(change)
    kept = r'{"a" => "\303\274","b" => "\x{fc}\x{263a}",'
    found = perl_dump(perl, redis.driver.raw_get("abc"))
    assert sorted(found.strip("{}").split(",")) == sorted((kept + written).strip("{}").split(","))


def test_encoding_null(redis_server: RedisServer) -> None:
    """Keys and strings are read as bytes, and strings are written as characters."""
    redis = Redis(redis_server, encoding=None)

    def change(session: Any) -> None:
        assert session[b"user"] == b"ann"
        session[b"user"] = b"bob"
        session["count"] = "2"
        session[b"cart"].append("\u263a")

    redis.change(change)
    expected = {"user": "bob", "count": "2", "cart": [{"sku": "a1"}, "\u263a"]}
    assert redis.stored() == expected


def test_strings_that_the_encoding_cannot_represent(redis_server: RedisServer) -> None:
    redis = Redis(redis_server, encoding="latin-1", write_text="bytes")
    with pytest.raises(StorableError, match="cannot be written in"):
        redis.change(put(new=["☺"]))
    redis.change(put(new=["ü"]))
    assert b"\xfc" in redis.driver.raw_get("abc")


def test_json(redis_server: RedisServer) -> None:
    """Another codec writes the whole session."""
    redis = Redis(redis_server, codec="json")
    redis.driver.raw_set("abc", '{"user": "ann", "list": [1]}', 60)

    def change(session: Any) -> None:
        session["list"].append(2)
        session["new"] = True
        del session["user"]

    redis.change(change)
    assert json.loads(redis.driver.raw_get("abc")) == {"list": [1, 2], "new": True}


# -- changes by others during the request


def test_both_changes_are_kept(redis: Redis) -> None:
    """If Perl changed other keys during the request, both changes are kept."""

    def change(session: Any) -> None:
        session["user"] = "bob"
        session["cart"].append({"sku": "b2"})
        redis.store({**SESSION, "count": 2, "perl": [1]})

    redis.change(change)
    assert redis.stored() == {
        "user": "bob",
        "count": 2,
        "perl": [1],
        "cart": [{"sku": "a1"}, {"sku": "b2"}],
    }


def test_the_later_save_wins_a_key(redis: Redis) -> None:
    def change(session: Any) -> None:
        session["user"] = "bob"
        del session["count"]
        redis.store({**SESSION, "user": "carol", "count": 7})

    redis.change(change)
    assert redis.stored() == {"user": "bob", "cart": SESSION["cart"]}


def test_the_later_save_wins_over_an_object(redis: Redis) -> None:
    """If Perl stored an object under a key that the request changed, the request's value wins."""
    image = perl_image(need_perl(), "{cart => bless([], 'My::Cart'), user => 'ann'}")

    def change(session: Any) -> None:
        session["cart"].append({"sku": "b2"})
        redis.driver.raw_set("abc", image, 600)

    redis.change(change)
    assert redis.stored() == {"user": "ann", "cart": [{"sku": "a1"}, {"sku": "b2"}]}


def test_logout_during_the_request(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """A session that Perl removed is not restored."""

    def change(session: Any) -> None:
        session["user"] = "bob"
        redis.driver.raw_delete("abc")

    redis.change(change)
    assert redis.stored() is None
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "was removed during the request" in record.getMessage()


def test_data_that_are_no_longer_a_session_are_not_changed(redis: Redis) -> None:
    def change(session: Any) -> None:
        session["user"] = "bob"
        redis.driver.raw_set("abc", b"something else", 60)

    redis.change(change)
    assert redis.driver.raw_get("abc") == b"something else"


def test_many_at_once(redis: Redis) -> None:
    """40 changes to different keys at the same time are all kept."""

    def request(number: int) -> None:
        site = Site({"kvs": "redis", "kvs_kwargs": {"url": redis.server.url}, "writable": True})
        for step in range(5):
            site.get(put_one(f"k{number}-{step}"), "abc")

    def put_one(key: str) -> Any:
        return lambda request: request.perlsess.update({key: 1})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(request, range(8)))
    assert len(redis.stored()) == len(SESSION) + 40


# -- no session


@pytest.mark.parametrize("session_id", [None, "unknown", "a b"])
def test_no_session_is_created(redis: Redis, session_id: str | None) -> None:
    """An id that the client chose does not become a session."""

    def change(request: Any) -> None:
        assert not request.perlsess.is_found
        with pytest.raises(KVSError, match="is_found"):
            request.perlsess["user"] = "mallory"
        with pytest.raises(KVSError, match="could be changed"):
            del request.perlsess["user"]
        request.perlsess.clear()

    redis.site.get(change, session_id)
    assert redis.driver.get_keys() == ["abc"]


# -- lifetime and failures


@pytest.mark.parametrize(("ttl", "left"), [(100, (90, 100)), (None, (-1, -1)), (2.5, (0.1, 3))])
def test_the_lifetime_is_kept(redis: Redis, ttl: float | None, left: tuple[float, float]) -> None:
    """A save neither extends nor shortens the lifetime that Perl set."""
    redis.store(SESSION, ttl)
    redis.change(put(new=1))
    assert "new" in redis.stored()
    assert left[0] <= redis.driver.raw_ttl("abc") <= left[1]


@pytest.mark.parametrize(("ttl", "left"), [(1000, (900, 1000)), (None, (-1, -1))])
def test_ttl_of_the_setting(
    redis_server: RedisServer, ttl: float | None, left: tuple[float, float]
) -> None:
    """Each save sets the ttl of the setting."""
    redis = Redis(redis_server, ttl=ttl)
    redis.store(SESSION, 50)
    redis.change(put(new=1))
    assert left[0] <= redis.driver.raw_ttl("abc") <= left[1]


def test_a_ttl_with_a_fraction_is_rounded_up(memcached_server: MemcachedServer) -> None:
    """On memcached, the driver wraps data with such a ttl, and Perl could not read them."""
    store = {"kvs": "memcache", "kvs_kwargs": {"servers": [memcached_server.url]}}
    site = Site({**store, "writable": True, "ttl": 99.5})
    memcached_server.talk(b"set perlsess::abc 1 50 8\r\n" + nfreeze({})[:8].ljust(8) + b"\r\n")
    site.get(lambda request: request.perlsess.update(user="bob"), "abc")
    reply = memcached_server.talk(b"mg perlsess::abc v f t\r\n")
    header, data = reply.split(b"\r\n")[0], reply.split(b"\r\n", 1)[1][:-2]
    # The driver sends one second more, because memcached's clock ticks once a second.
    assert header.split()[2:] in ([b"f1", b"t101"], [b"f1", b"t100"])
    assert thaw(data) == {"user": "bob"}


def test_a_save_in_the_last_second(memcached_server: MemcachedServer) -> None:
    """A session that is about to expire does not get an unlimited lifetime."""
    store = {"kvs": "memcache", "kvs_kwargs": {"servers": [memcached_server.url]}}
    site = Site({**store, "writable": True})

    def change(request: Any) -> bool:
        if request.perlsess.is_found:
            request.perlsess["user"] = "bob"
        return request.perlsess.is_found

    image = nfreeze(SESSION)
    for _ in range(20):  # the session may expire before it is read
        memcached_server.talk(b"set perlsess::abc 0 1 %d\r\n%b\r\n" % (len(image), image))
        if site.get(change, "abc").json:
            break
    reply = memcached_server.talk(b"mg perlsess::abc t\r\n")
    assert reply.startswith((b"HD t1", b"HD t2", b"EN"))
    assert not reply.startswith(b"HD t-1")


def test_the_store_is_unavailable_for_the_save(
    own_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets 503 instead of the page, and the log says that it was a Perl session."""
    redis = Redis(own_redis())

    def change(session: Any) -> None:
        session["user"] = "bob"
        redis.server.stop()

    response = redis.change(change, status=503)
    assert response.headers["Retry-After"]
    assert b"null" not in response.body
    logged = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    (message,) = logged
    assert message.startswith("a Perl session was not saved (KVSUnavailable)")
