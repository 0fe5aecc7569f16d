"""``request.perlsess`` in a view, read-only."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest
from pyramid import testing
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

import pyramid_kvs
from pyramid_kvs.perlsess import PerlSession, perlsess_of
from pyramid_kvs.storable import freeze, nfreeze
from tests.perlsess.sites import Site, as_json
from tests.perlsess.test_formats import chi
from tests.servers import MemcachedServer, RedisServer, need_perl
from tests.storable.perl import perl_image

MEMORY = {"kvs": "memory"}
SESSION = {"user": "ann", "cart": [{"sku": "a1"}]}


@pytest.fixture
def site() -> Site:
    site = Site(MEMORY)
    site.driver.raw_set("abc", nfreeze(SESSION), None)
    return site


def on_redis(server: RedisServer, **more: Any) -> Site:
    return Site({"kvs": "redis", "kvs_kwargs": {"url": server.url}, **more})


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- after the request


@pytest.mark.parametrize("writable", [False, True])
def test_is_read_for_the_first_time_after_the_request(writable: bool) -> None:
    site = Site({**MEMORY, "writable": writable})
    site.driver.raw_set("abc", nfreeze(SESSION), None)
    kept: list[PerlSession] = []
    site.get(lambda request: kept.append(request.perlsess), "abc")
    assert gc.collect() >= 0  # nothing but the list has the session now
    assert kept[0]["user"] == "ann"
    assert kept[0].id == "abc"


def test_without_a_cookie_it_is_empty_after_the_request(site: Site) -> None:
    kept: list[PerlSession] = []
    site.get(lambda request: kept.append(request.perlsess))
    assert dict(kept[0]) == {}


# -- a mapping


def test_reads_the_session(site: Site) -> None:
    assert site.read("abc") == SESSION


def test_is_a_mapping(site: Site) -> None:
    def look(request: Any) -> Any:
        session = request.perlsess
        assert isinstance(session, PerlSession)
        assert "user" in session
        assert "other" not in session
        assert session.get("other", 5) == 5
        assert session == SESSION
        assert len(session) == 2
        assert sorted(session) == ["cart", "user"]
        with pytest.raises(KeyError):
            session["other"]
        return session.is_found, session.id

    assert site.get(look, "abc").json == [True, "abc"]


def test_cannot_be_changed(site: Site) -> None:
    def change(request: Any) -> None:
        with pytest.raises(TypeError):
            request.perlsess["user"] = "bob"
        with pytest.raises(TypeError):
            del request.perlsess["user"]
        request.perlsess["cart"].append("local")

    site.get(change, "abc")
    assert site.read("abc") == SESSION


def test_one_object_for_a_request(site: Site) -> None:
    assert site.get(lambda request: request.perlsess is request.perlsess, "abc").json is True


def test_repr_shows_no_content(site: Site) -> None:
    def look(request: Any) -> list[str]:
        before = repr(request.perlsess)
        request.perlsess["user"]
        return [before, repr(request.perlsess)]

    assert site.get(look, "abc").json == ["<PerlSession: not read>", "<PerlSession: 2 keys>"]


def test_the_first_use_reads_the_store_once(redis_server: RedisServer) -> None:
    """A session that is not used costs no command. One that is used costs one command."""
    site = on_redis(redis_server)
    site.driver.raw_set("abc", nfreeze(SESSION), 60)
    redis_server.reset_calls()
    untouched = site.get(lambda request: None, "abc")
    assert redis_server.calls() == {}
    used = site.get(lambda request: [dict(request.perlsess), len(request.perlsess)], "abc")
    assert redis_server.calls() == {"get": 1}
    assert "Vary" not in untouched.headers
    assert used.headers["Vary"] == "Cookie"


def test_vary_is_kept(site: Site) -> None:
    def look(request: Any) -> None:
        request.perlsess.get("user")
        request.add_response_callback(
            lambda request, response: setattr(response, "vary", ["Accept", *response.vary])
        )

    assert site.get(look, "abc").headers["Vary"] == "Accept, Cookie"


# -- missing sessions


def test_no_cookie(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A missing or empty cookie is not logged."""
    assert site.read() == {}
    assert site.read("") == {}
    assert messages(caplog) == []


@pytest.mark.parametrize(
    "stored",
    [None, b"", b"no image", nfreeze([1, 2]), nfreeze("text"), nfreeze(SESSION)[:-1], b"\x05\x0b"],
    ids=["missing", "empty", "text", "list", "scalar", "truncated", "header"],
)
def test_nothing_to_read(
    site: Site, stored: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The mapping is empty, and one warning is logged, without the id."""
    session_id = "0123456789abcdef0123456789abcdef"
    if stored is not None:
        site.driver.raw_set(session_id, stored, None)

    def look(request: Any) -> Any:
        return [dict(request.perlsess), len(request.perlsess), request.perlsess.is_found]

    assert site.get(look, session_id).json == [{}, 0, False]
    (message,) = messages(caplog)
    assert message.startswith("perlsess: session ")
    assert session_id not in message


def test_an_empty_hash_is_a_session(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.driver.raw_set("new", nfreeze({}), None)
    assert site.get(lambda request: request.perlsess.is_found, "new").json is True
    assert messages(caplog) == []


def test_the_store_is_unavailable(own_redis: Any) -> None:
    """Reading gives 503. A request that does not read is not affected."""
    server = own_redis()
    site = on_redis(server)
    server.stop()
    assert site.get(lambda request: None, "abc").status_int == 200
    assert site.read() == {}
    response = site.get(lambda request: dict(request.perlsess), "abc", status=503)
    assert response.headers["Retry-After"]


# -- the id


HOSTILE = [
    "a b",
    "a\tb",
    "a\x7f",
    "a:b",
    "a&b",
    "a?b",
    "..%2f*",
    "a*",
    "x" * 129,
    "x" * 20000,
    "abc{id}",
    "%",
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value[:10]))
def test_hostile_ids_do_not_reach_the_store(
    value: str, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    site = on_redis(redis_server)
    site.driver.ping()
    redis_server.reset_calls()
    site.view = lambda request: dict(request.perlsess)
    environ = {"HTTP_COOKIE": f'session_id="{value}"'}
    assert site.app.get("/", extra_environ=environ).json == {}
    assert redis_server.calls() == {}
    assert messages(caplog) == [
        "perlsess: the value of the cookie is not a session id (id_pattern)"
    ]


@pytest.mark.parametrize(
    "session_id",
    [
        "9afe6ec91e0d3567e45f29a1361336c3",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "4162F712-1DD2-11B2-B17E-C09EFE1DC403",
        "abc_DEF-123",
        "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0+/w==",
        "a.b~c-d_e.F",
    ],
)
def test_ids_of_perl_modules(site: Site, session_id: str) -> None:
    """By default, ids of CGI::Session, Catalyst, Data::UUID, Session::Token, base64, and URLs."""
    site.driver.raw_set(session_id, nfreeze(SESSION), None)
    assert site.read(session_id) == SESSION


def test_percent_encoded_ids_of_cgi_cookie(site: Site) -> None:
    site.driver.raw_set("a+b/c=", nfreeze(SESSION), None)
    assert site.read("a%2Bb%2Fc%3D") == SESSION
    assert site.read("%252B") == {}


def test_id_pattern() -> None:
    site = Site({**MEMORY, "id_pattern": "[0-9a-f]{4}|odd%[ab]", "key_prefix": ""})
    for key in ("00ff", "odd%a", "abc"):
        site.driver.raw_set(key, nfreeze({"key": key}), None)
    assert site.read("00ff") == {"key": "00ff"}
    assert site.read("odd%a") == {"key": "odd%a"}
    assert site.read("abc") == {}


def test_key_format_and_cookie_name() -> None:
    site = Site(
        {**MEMORY, "key_prefix": "app/", "key_format": "s[{id}]", "cookie_name": "CGISESSID"}
    )
    site.driver.raw_set("s[abc]", nfreeze(SESSION), None)
    assert site.driver._get_key("s[abc]") == b"app/s[abc]"
    assert site.read("abc") == SESSION


def test_the_first_of_several_cookies_wins(site: Site) -> None:
    """Perl's cookie modules do the same. The browser sends the most specific cookie first."""
    site.view = lambda request: request.perlsess.id
    cookies = "a=1; session_id=abc; session_id=other; xsession_id=no"
    assert site.app.get("/", headers={"Cookie": cookies}).json == "abc"


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        ('a="; session_id=abc; b="', "abc"),
        ("a=1, session_id=abc", None),
        ('session_id="abc"', "abc"),
    ],
)
def test_only_a_semicolon_ends_a_cookie(site: Site, cookies: str, expected: str | None) -> None:
    """Another cookie can neither hide the id nor add one."""
    site.view = lambda request: request.perlsess.id
    assert site.app.get("/", headers={"Cookie": cookies}).json == expected


def test_other_cookies_in_latin_1(site: Site) -> None:
    """A cookie of the Perl site may be Latin-1."""
    site.view = lambda request: request.perlsess.id
    environ = {"HTTP_COOKIE": "name=Zo\xeb; session_id=abc"}
    assert site.app.get("/", extra_environ=environ).json == "abc"


# -- text


TEXT = {
    "utf-8": {"flagged": "Zoë", "bytes": "é", "other": {"bytes": "Zo\xeb"}, "é": 1},
    "latin-1": {"flagged": "Zoë", "bytes": "Ã©", "other": "Zoë", "Ã©": 1},
    None: {
        "bytes flagged": "Zoë",
        "bytes bytes": {"bytes": "Ã©"},
        "bytes other": {"bytes": "Zo\xeb"},
        "bytes Ã©": 1,
    },
}


@pytest.mark.parametrize("encoding", TEXT)
def test_encoding(encoding: str | None) -> None:
    """Strings with Perl's flag become str. ``encoding`` decides about the others."""
    script = r'{flagged => "Zoë", bytes => "\xc3\xa9", other => "Zo\xeb", "\xc3\xa9" => 1}'
    fixed = "do { my $h = " + script + "; utf8::upgrade($h->{flagged}); $h }"
    site = Site({**MEMORY, "encoding": encoding})
    site.driver.raw_set("abc", perl_image(need_perl(), fixed), None)
    assert site.read("abc") == TEXT[encoding]


# -- formats and codecs


def test_expired_entry_of_chi(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.driver.raw_set("old", chi(nfreeze(SESSION), expires=1_500_000_000), None)
    site.driver.raw_set("kept", chi(nfreeze(SESSION), expires=4_000_000_000), None)
    assert site.read("kept") == SESSION
    assert messages(caplog) == []
    assert site.read("old") == {}
    assert "it has expired" in messages(caplog)[0]


def test_expired_keys_of_cgi_session(site: Site) -> None:
    """Keys that CGI::Session would drop on the next read are missing."""
    session = {
        "_SESSION_ID": "abc",
        "_SESSION_ATIME": 1_500_000_000,
        "_SESSION_ETIME": 0,
        "_SESSION_EXPIRE_LIST": {"logged_in": 600, "cart": 10**9},
        "logged_in": 1,
        "cart": 2,
    }
    site.driver.raw_set("abc", freeze(session), None)
    found = site.read("abc")
    assert "logged_in" not in found
    assert found["cart"] == 2


def test_named_format() -> None:
    """With a named format, other formats are not read."""
    site = Site({**MEMORY, "format": "hex"})
    site.driver.raw_set("abc", nfreeze(SESSION).hex().encode(), None)
    site.driver.raw_set("plain", nfreeze(SESSION), None)
    assert site.read("abc") == SESSION
    assert site.read("plain") == {}


def test_json_codec() -> None:
    site = Site({**MEMORY, "codec": "json"})
    site.driver.raw_set("abc", '{"user": "ann"}', None)
    assert site.read("abc") == {"user": "ann"}


def test_max_bytes(memcached_server: MemcachedServer) -> None:
    store = {"kvs": "memcache", "kvs_kwargs": {"servers": [memcached_server.url]}}
    site = Site({**store, "max_bytes": 50})
    site.driver.raw_set("abc", nfreeze({"text": "x" * 60}), 60)
    site.driver.raw_set("small", nfreeze({"text": "x"}), 60)
    assert site.read("abc") == {}
    assert site.read("small") == {"text": "x"}


# -- configuration


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoding": "utf9"}, 'encoding: found "utf9"'),
        ({"format": "base46"}, "did you mean 'base64'"),
        ({"key_format": "session"}, "expected a string that contains {id} once"),
        ({"key_format": "{id}{other}"}, "expected a string that contains {id} once"),
        ({"id_pattern": "["}, "expected a Python regular expression"),
        ({"writable": "yes"}, "expected true or false"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"cookie": "x"}, "did you mean 'cookie_name'"),
        ({"codec": "storble"}, "did you mean 'storable'"),
        ({"writable": True, "fallback_codec": "json"}, "cannot be combined"),
    ],
)
def test_wrong_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as info:
        Site({**MEMORY, **wrong})
    assert "kvs.perlsess" in str(info.value)
    assert message in str(info.value)


@pytest.mark.parametrize("setting", [None, "", "null"])
def test_not_set(setting: Any) -> None:
    config = Configurator(settings={} if setting is None else {"kvs.perlsess": setting})
    config.include("pyramid_kvs")
    config.commit()
    request = testing.DummyRequest()
    request.registry = config.registry
    pyramid_kvs.subscribe_perlsess(type("Event", (), {"request": request}))
    assert not hasattr(request, "perlsess")


def test_subscriber() -> None:
    """A request that did not pass through the router gets the session too."""
    with testing.testConfig(settings={"kvs.perlsess": '{"kvs": "memory"}'}) as config:
        config.include("pyramid_kvs")
        config.commit()
        request = testing.DummyRequest(cookies={"session_id": "abc"})
        pyramid_kvs.subscribe_perlsess(type("Event", (), {"request": request}))
        perlsess_of(config.registry).driver.raw_set("abc", nfreeze({b"bytes": b"\xff"}), None)
        assert as_json(dict(request.perlsess)) == {"bytes": {"bytes": "\xff"}}


def test_subscriber_without_the_include() -> None:
    with testing.testConfig(settings={"kvs.perlsess": '{"kvs": "memory"}'}):
        request = testing.DummyRequest(cookies={"session_id": "abc"})
        pyramid_kvs.subscribe_perlsess(type("Event", (), {"request": request}))
        assert dict(request.perlsess) == {}


def test_introspection() -> None:
    site = Site(MEMORY)
    found = site.registry.introspector.get("kvs features", "kvs.perlsess")
    assert found["format"] == "auto"
    assert found["writable"] is False
