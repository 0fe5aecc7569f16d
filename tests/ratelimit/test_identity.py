"""Who is counted. No client avoids a limit by leaving out, forging or varying what it sends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from pyramid.authorization import ACLHelper
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from webtest import TestApp

from tests.ratelimit.stores import Settings, make_app, mock_keys, statuses, visit
from tests.servers import RedisServer

LIMIT = {"limit": 3, "window": 600}
MEMORY = {"kvs": "memory"}
FORGED = "f" * 40


def from_address(app: TestApp, address: str | None, count: int = 4, **options: Any) -> list[int]:
    environ = {} if address is None else {"REMOTE_ADDR": address}
    return statuses(app, count, extra_environ=environ, **options)


# -- sessions ----------------------------------------------------------------------------------


def test_a_session_is_counted_wherever_it_comes_from(store: Settings) -> None:
    app = make_app(LIMIT, store)
    app.get("/visit")
    found = [from_address(app, f"192.0.2.{n}", 1, path="/visit") for n in range(1, 5)]
    assert found == [[200], [200], [200], [429]]


def test_two_sessions_of_an_address_are_counted_apart(store: Settings) -> None:
    app = make_app(LIMIT, store)
    other = TestApp(app.app, extra_environ=app.extra_environ)
    app.get("/visit"), other.get("/visit")
    assert statuses(app, 4) == [200, 200, 200, 429]
    assert statuses(other, 4) == [200, 200, 200, 429]


def test_requests_without_the_cookie_do_not_avoid_the_limit(store: Settings) -> None:
    app = make_app(LIMIT, store)
    found = []
    for _ in range(4):
        found += statuses(app, 1, "/visit")
        app.reset()
    assert found == [200, 200, 200, 429]


def test_forged_cookies_do_not_avoid_the_limit(store: Settings) -> None:
    app = make_app(LIMIT, store)
    found = []
    for number in range(4):
        app.reset()
        app.set_cookie("session_id", f"{number:040x}")
        found += statuses(app, 1)
    assert found == [200, 200, 200, 429]


@pytest.mark.parametrize(
    "cookie", ["", "x", "a" * 39, "::ratelimit", "é" * 40, FORGED + "::ratelimit"]
)
def test_cookies_that_are_not_ids_count_by_address(cookie: str) -> None:
    app = make_app(LIMIT, MEMORY)
    headers = {"Cookie": f"session_id={cookie}".encode().decode("latin-1")}
    assert statuses(app, 4, headers=headers) == [200, 200, 200, 429]


@pytest.mark.parametrize("header", ["session_id=\\\xe9", f"session_id={FORGED}; x=\\\xe9"])
def test_a_cookie_header_that_does_not_decode_is_counted(header: str) -> None:
    app = make_app(LIMIT, MEMORY)
    assert statuses(app, 4, headers={"Cookie": header}) == [200, 200, 200, 429]


def test_the_key_of_a_counter_is_the_session_key_and_the_suffix(redis_server: RedisServer) -> None:
    session = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    app = make_app({**LIMIT, "key_suffix": "::n"}, session)
    app.get("/visit"), app.get("/"), app.get("/")
    key = f"session::{app.cookies['session_id']}::n"
    assert redis_server.client.get(key) == b"2"
    assert redis_server.client.get("session::@address::192.0.2.1::n") == b"1"
    assert 599 < redis_server.client.pttl(key) / 1000 <= 600


def test_any_request_of_a_known_session_renews_it(redis_server: RedisServer) -> None:
    session = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}, "ttl": 300}
    app = make_app({**LIMIT, "limit": 99}, session)
    app.get("/visit")
    key = f"session::{app.cookies['session_id']}"
    redis_server.client.expire(key, 10)
    app.get("/")
    assert redis_server.client.ttl(key) > 290


def test_a_session_in_another_store_than_the_counters_is_looked_up(
    redis_server: RedisServer,
) -> None:
    session = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    app = make_app({**LIMIT, **MEMORY}, session)
    app.get("/visit")
    assert from_address(app, "192.0.2.77") == [200, 200, 200, 429]
    assert app.get("/visit", status=429)
    app.reset()
    app.set_cookie("session_id", FORGED)
    assert from_address(app, "192.0.2.77", 1) == [200]


@pytest.mark.parametrize(("before", "after"), [(True, "accept"), (False, "migrate")])
def test_a_session_is_known_under_either_key_while_hashing_is_introduced(
    redis_server: RedisServer, before: bool, after: str
) -> None:
    session = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    old = make_app(LIMIT, {**session, "hash_keys": before})
    old.get("/visit")
    app = make_app(LIMIT, {**session, "hash_keys": after})
    assert statuses(app, 3)[-1] == 429
    app.set_cookie("session_id", old.cookies["session_id"])
    assert app.get("/visit").text == "2"
    assert statuses(app, 3) == [200, 200, 429]


# -- header sessions ---------------------------------------------------------------------------

TOKENS = {"kvs": "memory", "session_type": "header", "key_name": ["X-Auth-Token"]}


def with_token(token: str) -> dict[str, dict[str, str]]:
    return {"headers": {"X-Auth-Token": token}}


def test_tokens_without_a_session_count_by_address() -> None:
    app = make_app(LIMIT, TOKENS)
    found = [statuses(app, 1, **with_token(f"token{n}"))[0] for n in range(4)]
    assert found == [200, 200, 200, 429]


def test_tokens_with_a_session_count_apart() -> None:
    app = make_app({**LIMIT, "limit": 4}, TOKENS)
    for token in ("one", "two"):
        app.get("/visit", **with_token(token))
    assert statuses(app, 5, **with_token("one")) == [200, 200, 200, 200, 429]
    assert statuses(app, 5, **with_token("two")) == [200, 200, 200, 200, 429]


def test_unknown_session_counts_tokens_as_the_client_sends_them() -> None:
    app = make_app({**LIMIT, "unknown": "session"}, TOKENS)
    for token in ("one", "two", "a token that is odd and long " * 9):
        assert statuses(app, 4, **with_token(token)) == [200, 200, 200, 429]
    assert statuses(app, 4) == [200, 200, 200, 429]


def test_unknown_allow_counts_known_sessions_only(store: Settings) -> None:
    app = make_app({**LIMIT, "unknown": "allow"}, store)
    assert statuses(app, 5) == [200] * 5
    headers = app.get("/").headers
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("3", "3")
    assert "RateLimit" not in headers
    app.get("/visit")
    assert statuses(app, 4) == [200, 200, 200, 429]


@pytest.mark.parametrize("suffix", ["::ratelimit", "::ratelimit::two"])
def test_a_session_cannot_be_stored_at_the_counter_of_another(suffix: str) -> None:
    """Otherwise a write to that session, also in an exempt view, would reset the counter."""

    def configure(config: Configurator) -> None:
        config.add_route("exempt", "/exempt")
        config.add_view(visit, route_name="exempt", ratelimit=False)

    limits = [{**LIMIT, "limit": 99}, {**LIMIT, "name": "two", "limit": 3}]
    app = make_app(limits, TOKENS, configure)
    app.get("/visit", **with_token("one"))
    assert statuses(app, 4, **with_token("one")) == [200, 200, 200, 429]
    for path in ("/exempt", "/exempt", "/visit"):
        app.get(path, status="*", **with_token("one" + suffix))
    assert statuses(app, 1, **with_token("one")) == [429]


# -- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("X-Forwarded-For", "X-Real-Ip", "Forwarded", "X-Client-Ip", "True-Client-Ip"),
        *("Cf-Connecting-Ip", "Remote-Addr", "Client-Ip", "Via"),
    ],
)
def test_forwarded_headers_are_ignored(name: str) -> None:
    app = make_app({**LIMIT, **MEMORY})
    found = [
        statuses(
            app,
            1,
            headers={name: f"for=198.51.100.{n}" if name == "Forwarded" else f"198.51.100.{n}"},
        )
        for n in range(4)
    ]
    assert found == [[200], [200], [200], [429]]


def test_addresses_are_counted_apart() -> None:
    app = make_app({**LIMIT, **MEMORY})
    assert from_address(app, "192.0.2.1") == from_address(app, "192.0.2.2")
    assert from_address(app, "192.0.2.1", 1) == [429]


def test_ipv6_addresses_in_one_64_share_a_limit() -> None:
    app = make_app({**LIMIT, **MEMORY})
    found = [from_address(app, f"2001:db8:0:7:{n:x}::{n}", 1)[0] for n in range(1, 5)]
    assert found == [200, 200, 200, 429]
    assert from_address(app, "2001:db8:0:8::1", 1) == [200]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "@address::192.0.2.1"),
        ("::ffff:192.0.2.1", "@address::192.0.2.1"),
        ("::ffff:c000:201", "@address::192.0.2.1"),
        ("2001:DB8:0:7:1::9", "@address::2001:db8:0:7::/64"),
        ("fe80::1%eth0", "@address::fe80::/64"),
        ("::1", "@address::::/64"),
        ("", "@address::none"),
        (None, "@address::none"),
    ],
)
def test_the_key_of_an_address(mock_store: Settings, address: str | None, expected: str) -> None:
    make_app({**LIMIT, **mock_store}, address=address).get("/")
    assert mock_keys() == [f"ratelimit::{expected}::ratelimit"]


@pytest.mark.parametrize("address", ["unix:", "1.2.3.4:80", "x\r\nflush_all", "a" * 5000, "é"])
def test_an_address_with_special_characters_is_hashed(mock_store: Settings, address: str) -> None:
    make_app({**LIMIT, **mock_store}, address=address).get("/")
    (key,) = mock_keys()
    assert re.fullmatch("ratelimit::sha256:[0-9a-f]{64}::ratelimit", key)


def test_clients_without_an_address_share_a_limit_and_a_warning() -> None:
    """In a new process, because the warning is logged once in an hour and process."""
    program = f"""
import logging
from tests.ratelimit.stores import make_app, statuses
logging.basicConfig(format="%(message)s")
app = make_app({ {**LIMIT, **MEMORY} }, address=None)
print(statuses(app, 4))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert result.stdout == "[200, 200, 200, 429]\n"
    assert [line for line in result.stderr.splitlines() if "REMOTE_ADDR" in line] != []
    assert result.stderr.count("share one rate limit") == 1


# -- users, headers, callables -----------------------------------------------------------------


class ByParameter:
    """A security policy that trusts a parameter of the request."""

    def authenticated_userid(self, request: Request) -> Any:
        return request.params.get("user")

    identity = authenticated_userid

    def permits(self, request: Request, context: Any, permission: str) -> Any:
        return ACLHelper().permits(context, [], permission)


def test_by_user() -> None:
    def configure(config: Configurator) -> None:
        config.set_security_policy(ByParameter())

    app = make_app({**LIMIT, **MEMORY, "by": "user"}, configure=configure)
    assert statuses(app, 4, "/?user=ann") == [200, 200, 200, 429]
    assert statuses(app, 4, "/?user=bob") == [200, 200, 200, 429]
    assert statuses(app, 4) == [200, 200, 200, 429]
    assert statuses(app, 4, "/?user=192.0.2.1") == [200, 200, 200, 429]


def test_by_header() -> None:
    app = make_app({**LIMIT, **MEMORY, "by": "header:X-Api-Key"})
    for key in ("one", "two", "odd key \u00e9" * 30, "@address::192.0.2.1"):
        headers = {"X-Api-Key": key.encode().decode("latin-1")}
        assert statuses(app, 4, headers=headers) == [200, 200, 200, 429]
    assert statuses(app, 2) == [200, 200]
    assert statuses(app, 2, headers={"X-Api-Key": ""}) == [200, 429]


def tenant(request: Request) -> Any:
    return {"": None, "number": 5}.get(request.params["tenant"], request.params["tenant"])


def test_by_callable() -> None:
    app = make_app({**LIMIT, **MEMORY, "by": f"{__name__}.tenant"})
    assert statuses(app, 4, "/?tenant=a") == [200, 200, 200, 429]
    assert statuses(app, 4, "/?tenant=b%20" + "b" * 99) == [200, 200, 200, 429]
    assert statuses(app, 4, "/?tenant=") == [200] * 4
    assert app.get("/?tenant=").headers["X-RateLimit-Remaining"] == "3"
    with pytest.raises(TypeError, match="tenant returned int, expected a string or None"):
        app.get("/?tenant=number")


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("adress", "did you mean 'address'"),
        ("header:", "'' is not the name of a header"),
        ("header:X Y", "'X Y' is not the name of a header"),
        ("no.such.module", "by: 'no.such.module' cannot be imported: No module named 'no'\n"),
        ("json.dums", "by: 'json.dums' .*: the module json has no 'dums'; did you mean 'dumps'"),
        ("headr:Authorization", "No module named 'headr'; did you mean 'header:Authorization'"),
        ("module:header", "by: 'module:header' cannot be imported: No module named 'module'\n"),
        (f"{__name__}.LIMIT", "cannot be called"),
    ],
)
def test_an_invalid_by_stops_the_start(by: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_app({**LIMIT, **MEMORY, "by": by})


def test_missing_values_are_not_limited_with_unknown_allow() -> None:
    app = make_app({**LIMIT, **MEMORY, "by": "header:X-Api-Key", "unknown": "allow"})
    assert statuses(app, 5) == [200] * 5
    assert statuses(app, 4, headers={"X-Api-Key": "k"}) == [200, 200, 200, 429]


# -- methods, applications ---------------------------------------------------------------------


def test_only_the_listed_methods_count() -> None:
    app = make_app({**LIMIT, **MEMORY, "methods": ["post", "GET"]})
    assert [app.options("/").status_int for _ in range(5)] == [200] * 5
    found = [app.post("/", status="*"), app.head("/", status="*"), app.get("/", status="*")]
    assert [response.status_int for response in found] == [200, 200, 200]
    assert app.head("/", status="*").status_int == 429


def test_two_applications_in_one_process_share_nothing() -> None:
    one, two = (make_app(json.dumps({**LIMIT, **MEMORY})) for _ in range(2))
    assert statuses(one, 4) == [200, 200, 200, 429]
    assert statuses(two, 4) == [200, 200, 200, 429]
