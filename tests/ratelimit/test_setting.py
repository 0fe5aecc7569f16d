"""The setting ``kvs.ratelimit``: its defaults, and the messages for invalid values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from webtest import TestApp

from pyramid_kvs.ratelimit import Ratelimit
from tests.ratelimit.stores import Settings, hello, make_app, mock_keys, policies, statuses
from tests.servers import RedisServer

MEMORY = {"kvs": "memory"}


@pytest.mark.parametrize("value", ["{}", {}, '{"window": 1, "limit": 15}'])
def test_the_documented_defaults(value: Any, mock_store: Settings) -> None:
    response = make_app(value, mock_store).get("/")
    assert response.headers["RateLimit-Policy"] == '"session-1s";q=15;w=1'
    assert response.headers["X-RateLimit-Remaining"] == "14"
    assert mock_keys() == ["session::@address::192.0.2.1::ratelimit"]


@pytest.mark.parametrize("value", ["", " ", "null", None])
def test_an_empty_setting_is_as_if_absent(value: Any) -> None:
    assert "X-RateLimit-Limit" not in make_app(value).get("/").headers


def test_names_are_derived_and_distinct() -> None:
    limits = [{}, {"window": 60}, {"window": 60, "limit": 3}, {"by": "address"}, {"name": "n"}]
    app = make_app(json.dumps(limits), MEMORY)
    assert policies(app.get("/")) == [
        *("session-1s", "session-60s", "session-60s-2", "address-1s", "n")
    ]


def test_the_first_limit_has_the_key_of_1_0_and_others_add_their_name(
    mock_store: Settings,
) -> None:
    limits = [{"key_suffix": "::x"}, {"name": "a b"}, {"key_suffix": "::x", "name": "c"}]
    make_app(limits, mock_store).get("/")
    address = "session::@address::192.0.2.1"
    suffixes = {key.removeprefix(address) for key in mock_keys()}
    assert suffixes == {"::x", "::ratelimit::a b", "::x::c"}


def test_the_callers_object_is_not_changed() -> None:
    value = [{"limit": 3, "kvs": "memory", "kvs_kwargs": {"max_bytes": 99999}}]
    before = json.dumps(value)
    statuses(make_app(value), 2)
    assert json.dumps(value) == before


def test_limits_with_equal_stores_count_in_one_call(redis_server: RedisServer) -> None:
    store = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    app = make_app([{**store, "name": "a"}, {**store, "name": "b"}])
    app.get("/")
    redis_server.reset_calls()
    app.get("/")
    assert redis_server.calls()["evalsha"] == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"by": "ip"}, "by: unknown identity 'ip'.*did you mean 'address'"),
        ({"by": "api_key"}, "did you mean 'header:X-API-Key'"),
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
        ({"cost": 16}, "cost: found 16, expected at most 15 .the limit., because otherwise no"),
        ({"strategy": "gcra", "burst": 2, "cost": 3}, "cost: found 3, expected at most 2"),
        ({"unknown": "deny"}, "unknown: found .*expected one of"),
        ({"on_error": "raise"}, "on_error: found .*expected one of"),
        ({"headers": "x"}, 'headers: found "x", expected a list'),
        ({"headers": ["y"]}, "headers: found"),
        ({"status": 200}, "status: found 200, expected an HTTP status from 400 to 599"),
        ({"methods": 5}, "methods: found 5"),
        ({"methods": ["GTE"]}, r"or a list of them, or null; did you mean 'GET'\?"),
        ({"methods": "G T"}, "the name of an HTTP method"),
        ({"mode": "shadows"}, 'mode: found "shadows", expected one of.*did you mean .shadow.'),
        ({"count": "failure"}, 'count: found "failure", expected "all".*did you mean .failures.'),
        ({"count": 401}, r"count: found 401, .*did you mean \[401\]"),
        ({"count": ["401", 403]}, r"count: found \[.401., 403\].*did you mean \[401, 403\]"),
        ({"count": "403"}, r"did you mean \[403\]"),
        ({"count": []}, r"count: found \[\], expected .*a list of HTTP statuses"),
        ({"count": [99]}, "count: found"),
        ({"count": [True]}, "count: found"),
        ({"count": None}, "count: found null"),
        ({"except": "10.0.0.0/33"}, r"but '10.0.0.0/33' is neither\n"),
        ({"except": "10.0.0.0/8"}, r'except: found "10.0.0.0/8".*did you mean \["10.0.0.0/8"\]'),
        ({"except": ["10.0.0.1/8"]}, r"'10.0.0.1/8' is an address in a network.*mean '10.0.0.0/8'"),
        ({"except": ["localhost"]}, "except: found .*, but 'localhost' is neither"),
        ({"except": [5]}, r"except: found \[5\]"),
        ({"exempt": ["10.0.0.0/8"]}, "unknown key 'exempt'.*did you mean 'except'"),
        ({"name": "n\u00e9"}, "name: found .*printable ASCII"),
        ({"name": "a\r\nb"}, "name: found .*printable ASCII"),
        ({"key_suffix": ""}, "key_suffix: found"),
        ({"kvs": "redsi"}, "kvs.ratelimit: kvs: unknown driver 'redsi'.*did you mean 'redis'"),
        ({"kvs_kwargs": {"port": 1}}, "kvs_kwargs: found .* but no 'kvs'"),
        ({"key_prefix": "a::"}, "key_prefix: found .a::. but no 'kvs'"),
        ([{}, 5], r"kvs.ratelimit\[1\]: found 5, expected an object"),
        ([{"name": "a"}, {"name": "a"}], "name: duplicate name 'a'"),
        ([{"name": "a"}, {"name": "a", "limit": 3}], "'a' is the name of another limit"),
        (
            [{"key_suffix": "::ratelimit::b"}, {"name": "b"}],
            "the keys of another limit's counters end with '::ratelimit::b' too",
        ),
        ("[{]", "kvs.ratelimit: not valid JSON"),
        ("15", "kvs.ratelimit: found 15, expected an object"),
    ],
)
def test_a_bad_setting_stops_the_start(value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        make_app(value, MEMORY)


def test_without_a_session_a_separate_store_is_needed() -> None:
    with pytest.raises(ConfigurationError, match=r"'kvs' is missing.*set kvs.session, or name"):
        make_app({"limit": 5})


def test_with_a_separate_store_no_session_is_needed() -> None:
    assert statuses(make_app({"limit": 2, "window": 60, **MEMORY}), 3) == [200, 200, 429]


def test_secrets_are_not_in_messages() -> None:
    value = {"kvs": "redis", "kvs_kwargs": {"password": "s3cret", "no_such": 1}}
    with pytest.raises(ConfigurationError) as caught:
        make_app(value)
    assert "s3cret" not in str(caught.value)


def test_the_limiter_works_without_an_application() -> None:
    limiter = Ratelimit({"limit": 2, "window": 60, **MEMORY})
    request = Request.blank("/", environ={"REMOTE_ADDR": "192.0.2.1"})
    decided = limiter.count(request)
    assert (decided.limit, decided.remaining, decided.allowed) == (2, 1, True)
    assert request.ratelimit is decided


# -- tweens that the settings list ---------------------------------------------------------------

EXCVIEW = "pyramid.tweens.excview_tween_factory"
TWEEN = "pyramid_kvs.ratelimit.tween_factory"
LIMIT = {"limit": 2, "window": 60, **MEMORY}


@pytest.mark.parametrize("value", [LIMIT, []])
@pytest.mark.parametrize("include", ["setting", "directive"])
def test_a_list_of_tweens_without_the_tween_stops_the_start(value: Any, include: str) -> None:
    """Otherwise all limits would be off without a word."""
    settings = {"pyramid.tweens": EXCVIEW, "kvs.ratelimit": value}
    if include == "setting":
        settings["pyramid.includes"] = "pyramid_kvs"
    config = Configurator(settings=settings)
    if include == "directive":
        config.include("pyramid_kvs")
    with pytest.raises(ConfigurationError) as caught:
        config.make_wsgi_app()
    assert str(caught.value).count("pyramid.tweens does not name") == 1
    assert f"below the line {EXCVIEW}:\n    {TWEEN}" in str(caught.value)


def test_a_list_of_tweens_with_the_tween_above_exception_views_stops_the_start() -> None:
    """Nothing would answer the error, so that a refused client would get a 500."""
    with pytest.raises(ConfigurationError, match=f"names {TWEEN} above {EXCVIEW}"):
        make_app(LIMIT, **{"pyramid.tweens": f"{TWEEN}\n{EXCVIEW}"})


@pytest.mark.parametrize(
    "tweens",
    [f"{EXCVIEW}\n{TWEEN}", f"{EXCVIEW} pyramid_kvs.ratelimit:tween_factory", "", " \n"],
)
def test_a_list_of_tweens_with_the_tween_counts(tweens: str) -> None:
    assert statuses(make_app(LIMIT, **{"pyramid.tweens": tweens}), 3) == [200, 200, 429]


def test_without_the_setting_a_list_of_tweens_needs_no_tween() -> None:
    assert statuses(make_app(None, **{"pyramid.tweens": EXCVIEW}), 1) == [200]


# -- when the setting is read --------------------------------------------------------------------


def test_the_setting_is_read_when_the_configuration_is_committed() -> None:
    """Directives after the include count, as for ``kvs.session``."""
    config = Configurator(settings={"kvs.ratelimit": {"kvs": "late"}})
    config.include("pyramid_kvs")
    config.add_kvs_driver("late", "pyramid_kvs.drivers.memory.MemoryKVS")
    config.registry.settings["kvs.ratelimit"]["limit"] = 1
    config.add_settings({"kvs.ratelimit": {"kvs": "late", "limit": 2, "window": 60}})
    config.add_route("hello", "/")
    config.add_view(hello, route_name="hello")
    app = TestApp(config.make_wsgi_app(), extra_environ={"REMOTE_ADDR": "192.0.2.1"})
    assert statuses(app, 3) == [200, 200, 429]
