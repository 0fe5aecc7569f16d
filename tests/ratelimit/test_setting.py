"""The setting ``kvs.ratelimit``: what it may say, and what it answers to the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request

from pyramid_kvs import ratelimit
from pyramid_kvs.ratelimit import Ratelimit
from tests.ratelimit.stores import make_app, statuses

MEMORY = {"kvs": "memory"}


def limiter_of(app: Any) -> Ratelimit:
    found = ratelimit.limiter_of(app.app.registry)
    assert found is not None
    return found


@pytest.mark.parametrize("value", ["{}", {}, '{"window": 1, "limit": 15}'])
def test_the_documented_defaults(value: Any) -> None:
    (limit,) = limiter_of(make_app(value, MEMORY)).book.limits
    assert limit.rule == ("fixed-window", 15, 1000, 15, 1)
    assert (limit.by, limit.suffix, limit.on_error) == ("session", "::ratelimit", "allow")


@pytest.mark.parametrize("value", ["", " ", "null", None])
def test_an_empty_setting_is_as_if_absent(value: Any) -> None:
    app = make_app(value)
    assert ratelimit.limiter_of(app.app.registry) is None
    assert "X-RateLimit-Limit" not in app.get("/").headers


def test_names_are_derived_and_distinct() -> None:
    limits = [{}, {"window": 60}, {"window": 60, "limit": 3}, {"by": "address"}, {"name": "n"}]
    book = limiter_of(make_app(json.dumps(limits), MEMORY)).book
    assert [limit.name for limit in book.limits] == [
        *("session-1s", "session-60s", "session-60s-2", "address-1s", "n")
    ]


def test_the_first_limit_counts_where_1_0_did_and_others_apart() -> None:
    limits = [{"key_suffix": "::x"}, {"name": "a b"}, {"key_suffix": "::x", "name": "c"}]
    book = limiter_of(make_app(limits, MEMORY)).book
    assert [limit.suffix for limit in book.limits] == ["::x", "::ratelimit::a b", "::x::c"]


def test_the_callers_object_is_not_changed() -> None:
    value = [{"limit": 3, "kvs": "memory", "kvs_kwargs": {"max_bytes": 99999}}]
    before = json.dumps(value)
    statuses(make_app(value), 2)
    assert json.dumps(value) == before


def test_limits_of_equal_stores_share_one() -> None:
    limits = [{**MEMORY, "name": "a"}, {**MEMORY, "name": "b"}]
    book = limiter_of(make_app(limits)).book
    assert len({limit.store for limit in book.limits}) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"windw": 1}, "kvs.ratelimit: unknown key 'windw'.*did you mean 'window'"),
        ({"window": 0}, "window: found 0, expected a number of seconds from 0.001"),
        ({"window": "1"}, 'window: found "1"'),
        ({"window": True}, "window: found true"),
        ({"window": 1e10}, "window: found 1"),
        ({"limit": 0}, "limit: found 0, expected a positive integer"),
        ({"limit": 1.5}, "limit: found 1.5"),
        ({"limit": 10**15}, "limit: found 1000000000000000"),
        ({"strategy": "fixed_window"}, 'strategy: found "fixed_window".*did you mean .fixed-win'),
        ({"burst": 5}, 'burst: found 5, but strategy "fixed-window" has no burst'),
        ({"cost": 16}, "cost: found 16, expected at most 15 .the limit., or no request ever"),
        ({"strategy": "gcra", "burst": 2, "cost": 3}, "cost: found 3, expected at most 2"),
        ({"unknown": "deny"}, "unknown: found .*expected one of"),
        ({"on_error": "raise"}, "on_error: found .*expected one of"),
        ({"headers": "x"}, 'headers: found "x", expected a list'),
        ({"headers": ["y"]}, "headers: found"),
        ({"status": 200}, "status: found 200, expected an HTTP status from 400 to 599"),
        ({"methods": 5}, "methods: found 5"),
        ({"methods": ["GTE"]}, "did you mean 'GET'?"),
        ({"methods": "G T"}, "the name of an HTTP method"),
        ({"name": "n\u00e9"}, "name: found .*printable ASCII"),
        ({"name": "a\r\nb"}, "name: found .*printable ASCII"),
        ({"key_suffix": ""}, "key_suffix: found"),
        ({"kvs": "redsi"}, "kvs.ratelimit: kvs: unknown driver 'redsi'.*did you mean 'redis'"),
        ({"kvs_kwargs": {"port": 1}}, "kvs_kwargs: found .* but no 'kvs'"),
        ([{}, 5], r"kvs.ratelimit\[1\]: found 5, expected an object"),
        ([{"name": "a"}, {"name": "a"}], "name: 'a' stands twice"),
        ([{"name": "a"}, {"name": "a", "limit": 3}], "'a' is the name of another limit"),
        (
            [{"key_suffix": "::ratelimit::b"}, {"name": "b"}],
            "'::ratelimit::b' ends the counter's key of another limit too",
        ),
        ("[{]", "kvs.ratelimit: not valid JSON"),
        ("15", "kvs.ratelimit: found 15, expected an object"),
    ],
)
def test_a_bad_setting_stops_the_start(value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        make_app(value, MEMORY)


def test_without_a_session_a_store_is_needed() -> None:
    with pytest.raises(ConfigurationError, match=r"'kvs' is missing.*set kvs.session, or name"):
        make_app({"limit": 5})


def test_with_a_store_of_its_own_no_session_is_needed() -> None:
    assert statuses(make_app({"limit": 2, "window": 60, **MEMORY}), 3) == [200, 200, 429]


def test_secrets_are_not_in_messages() -> None:
    value = {"kvs": "redis", "kvs_kwargs": {"password": "s3cret", "no_such": 1}}
    with pytest.raises(ConfigurationError) as caught:
        make_app(value)
    assert "s3cret" not in str(caught.value)


def test_the_limiter_works_on_its_own() -> None:
    limiter = Ratelimit({"limit": 2, "window": 60, **MEMORY})
    request = Request.blank("/", environ={"REMOTE_ADDR": "192.0.2.1"})
    decided = limiter.count(request)
    assert (decided.limit, decided.remaining, decided.allowed) == (2, 1, True)
    assert request.ratelimit is decided
