"""Settings: what is accepted, and what a message says of the rest."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from webtest import TestApp

from pyramid_kvs.application import Application
from pyramid_kvs.cache import cache_of
from pyramid_kvs.kvs import names
from pyramid_kvs.settings import copied


@pytest.fixture(autouse=True)
def no_registered_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing ``pyramid_kvs.testing``, as other tests do, makes ``mock`` known."""
    monkeypatch.setattr(names, "_registered", {})


def configure(**features: Any) -> Configurator:
    named = {f"kvs.{name}": value for name, value in features.items()}
    config = Configurator(settings={"pyramid.includes": "pyramid_kvs", **named})
    config.commit()
    return config


def refusal(**features: Any) -> str:
    with pytest.raises(ConfigurationError) as info:
        configure(**features)
    return str(info.value)


@pytest.mark.parametrize("empty", ["", "  ", "null", " null\n", None])
def test_an_empty_setting_is_as_if_absent(empty: str | None) -> None:
    config = configure(cache=empty, session=empty, ratelimit=empty, perlsess=empty)
    application = Application.of(config.registry)
    assert (application.features, application.stores) == ({}, [])


def test_a_value_may_span_lines() -> None:
    config = configure(cache='\n{\n  "kvs": "memory",\n  "ttl": null\n}\n')
    assert cache_of(config.registry).client.ttl is None


def test_defaults() -> None:
    driver = cache_of(configure(cache={"kvs": "memory"}).registry).client
    assert (driver.ttl, driver.key_prefix) == (300, b"cache::")


def test_type_is_another_word_for_kvs() -> None:
    assert cache_of(configure(cache={"type": "memory"}).registry) is not None
    assert cache_of(configure(cache={"type": "memory", "kvs": "memory"}).registry)
    assert cache_of(configure(cache={"type": "memory", "kvs": None}).registry)
    servers = {"servers": ["127.0.0.1:1"]}
    aliases = {"type": "memcached", "kvs": "memcache", "kvs_kwargs": servers}
    assert cache_of(configure(cache=aliases).registry)
    message = refusal(cache={"kvs": "memory", "type": "redis"})
    assert "kvs.cache: 'kvs' is 'memory' and 'type' is 'redis'" in message


def test_the_callers_object_is_left_alone() -> None:
    options: dict[str, Any] = {"type": "memory", "kvs_kwargs": {"max_bytes": 1000}}
    configure(cache=options)
    assert options == {"type": "memory", "kvs_kwargs": {"max_bytes": 1000}}


def test_objects_without_a_copy_may_stand_in_kvs_kwargs() -> None:
    context = ssl.create_default_context()
    options = copied({"kvs": "x", "kvs_kwargs": {"a": [context]}})
    assert options["kvs_kwargs"]["a"][0] is context


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ('{"kvs": "memory"', ["kvs.cache: not valid JSON", "line 1 column"]),
        ("{'kvs': 'memory'}", ["not valid JSON", "double quotes"]),
        ('{"kvs": "memory",}', ["not valid JSON", "no comma before a closing bracket"]),
        ('{"kvs": None}', ["not valid JSON", "true, false and null"]),
        ('{"kvs": "memory", "kvs": "redis"}', ["duplicate key 'kvs'"]),
        ("[]", ["kvs.cache: found []", "expected an object"]),
        ("7", ["found 7", "expected an object"]),
        ({"kvs": "memory", "tll": 5}, ["unknown key 'tll'", "did you mean 'ttl'?"]),
        ({}, ["kvs.cache: 'kvs' is missing", '{"kvs": "redis"}']),
        ({"kvs": ""}, ['kvs: found ""', "a non-empty string"]),
        ({"kvs": "reddis"}, ["kvs: unknown driver 'reddis'", "did you mean 'redis'?"]),
        ({"kvs": "mock"}, ["pyramid.includes = pyramid_kvs.testing"]),
        ({"kvs": "memory", "codec": "jason"}, ["codec: unknown codec", "did you mean 'json'?"]),
        ({"kvs": "memory", "fallback_codec": "pikle"}, ["fallback_codec", "'pickle'?"]),
        ({"kvs": "memory", "ttl": "300"}, ['ttl: found "300"', "above 0, or null"]),
        ({"kvs": "memory", "ttl": True}, ["ttl: found true", "number of seconds above 0"]),
        ({"kvs": "memory", "ttl": 0}, ["ttl: found 0"]),
        ({"kvs": "memory", "ttl": -1}, ["ttl: found -1"]),
        ({"kvs": "memory", "ttl": float("nan")}, ["ttl: found NaN"]),
        ({"kvs": "memory", "ttl": 10**400}, ["ttl: found 1000", "above 0, or null"]),
        ('{"kvs": "memory", "ttl": ' + "9" * 5000 + "}", ["not valid JSON", "integer string"]),
        ({"kvs": "memory", "TTL": 5}, ["unknown key 'TTL'", "did you mean 'ttl'?"]),
        ({"kvs": "memory", "codec": "JSON"}, ["codec: unknown codec", "did you mean 'json'?"]),
        ({"kvs": "memory", "key_prefix": 5}, ["key_prefix: found 5, expected a string"]),
        ({"kvs": "memory", "on_error": "mis"}, ["on_error", '"miss", "raise"', "'miss'?"]),
        ({"kvs": "memory", "kvs_kwargs": []}, ["kvs_kwargs", "expected an object"]),
        (
            {"kvs": "memory", "kvs_kwargs": {"hots": 1}},
            ["kvs_kwargs", "hots", "known: max_bytes, name"],
        ),
        (
            {"kvs": "redis", "kvs_kwargs": {"hots": 1}},
            ["redis client", "hots", "did you mean 'host'?"],
        ),
        ({"kvs": "memory", "secret": 5}, ["secret", "a list of strings, newest first"]),
    ],
)
def test_a_refusal_says_what_to_write(value: Any, parts: list[str]) -> None:
    message = refusal(cache=value)
    assert "kvs.cache: " in message
    for part in parts:
        assert part in message


def test_hostile_depth_is_not_valid_json() -> None:
    assert "kvs.cache: not valid JSON" in refusal(cache="[" * 100_000)


@pytest.mark.parametrize(
    ("options", "hidden"),
    [
        ({"kvs": "memory", "secret": ["s3cret", 7]}, "s3cret"),
        ({"kvs": "redis", "kvs_kwargs": {"password": "hunter2", "hots": 1}}, "hunter2"),
        ({"kvs": "redis", "kvs_kwargs": {"url": "redis://u:hunter2@h:x/"}}, "hunter2"),
        ({"kvs": "redis", "kvs_kwargs": "redis://u:hunter2@h"}, "hunter2"),
        ({"kvs": "redis", "kvs_kwargs": {"url": "redis://:hun/ter2@h:x"}}, "ter2"),
        ({"kvs": "redis", "kvs_kwargs": {"url": "redis://:hun@ter2@h:x"}}, "ter2"),
        ({"kvs": "redis", "kvs_kwargs": {"url": "redis://:hun ter2@h:x"}}, "ter2"),
        ({"kvs": "redis", "kvs_kwargs": {"url": "redis://h:x/?password=hunter2"}}, "hunter2"),
        ({"kvs": "memory", "kvs_kwargs": {"dsn": "host=h password=hunter2"}}, "hunter2"),
        ({"kvs": "memory", "kvs_kwargs": {"dsn": "password = 'hun ter2' host=h"}}, "ter2"),
        ({"kvs": "memory", "kvs_kwargs": {"dsn": r"password='hun\' ter2' host=h"}}, "ter2"),
        ({"kvs": "memory", "kvs_kwargs": {"dsn": "password='hun ter2"}}, "ter2"),
    ],
)
def test_a_refusal_shows_no_secret(options: Any, hidden: str) -> None:
    assert hidden not in refusal(cache=options)


def test_a_misspelt_setting_stops_the_start() -> None:
    message = refusal(sesion={"kvs": "memory"})
    assert "unknown setting 'kvs.sesion'" in message
    assert "did you mean 'kvs.session'?" in message


def test_a_setting_of_somebody_else_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    configure(metrics="x")
    assert "'kvs.metrics' is unknown to pyramid_kvs" in caplog.text


def test_nothing_is_checked_before_the_commit() -> None:
    config = Configurator(settings={"kvs.cache": {"kvs": "late"}})
    config.include("pyramid_kvs")
    config.add_kvs_driver("late", "pyramid_kvs.drivers.memory:MemoryKVS")
    config.commit()
    assert cache_of(config.registry) is not None


def test_a_codec_of_the_application() -> None:
    class Upper:
        def dumps(self, value: str) -> str:
            return value.upper()

        def loads(self, data: Any) -> str:
            return str(data)

    config = Configurator(settings={"kvs.cache": {"kvs": "memory", "codec": "upper"}})
    config.include("pyramid_kvs")
    config.add_kvs_codec("upper", Upper())
    config.add_route("home", "/")

    def view(request: Any) -> Any:
        request.cache["key"] = "text"
        return request.cache["key"]

    config.add_view(view, route_name="home", renderer="string")
    assert TestApp(config.make_wsgi_app()).get("/").text == "TEXT"


def test_features_can_be_introspected() -> None:
    config = configure(cache={"kvs": "memory"})
    found = config.introspector.get("kvs features", "kvs.cache")
    assert dict(found) == {"driver": "memory", "key_prefix": "cache::"}


def test_a_secret_that_signs_nothing_is_named(caplog: pytest.LogCaptureFixture) -> None:
    configure(cache={"kvs": "memory", "secret": "s3cret", "codec": "pickle"})
    assert caplog.text == ""
    configure(cache={"kvs": "memory", "secret": "s3cret"})
    assert "kvs.cache: secret signs pickled values" in caplog.text
    assert "s3cret" not in caplog.text
