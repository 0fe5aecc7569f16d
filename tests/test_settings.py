"""Settings: what is accepted, and the message for everything else."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
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
def test_an_empty_setting_counts_as_absent(empty: str | None) -> None:
    config = configure(cache=empty, session=empty, ratelimit=empty, perlsess=empty)
    application = Application.of(config.registry)
    assert (application.features, application.stores) == ({}, [])


def test_a_value_may_span_lines() -> None:
    config = configure(cache='\n{\n  "kvs": "memory",\n  "ttl": null\n}\n')
    assert cache_of(config.registry).client.ttl is None


def test_defaults() -> None:
    driver = cache_of(configure(cache={"kvs": "memory"}).registry).client
    assert (driver.ttl, driver.key_prefix) == (300, b"cache::")


def test_type_is_an_alias_of_kvs() -> None:
    assert cache_of(configure(cache={"type": "memory"}).registry) is not None
    assert cache_of(configure(cache={"type": "memory", "kvs": "memory"}).registry)
    assert cache_of(configure(cache={"type": "memory", "kvs": None}).registry)
    servers = {"servers": ["127.0.0.1:1"]}
    aliases = {"type": "memcached", "kvs": "memcache", "kvs_kwargs": servers}
    assert cache_of(configure(cache=aliases).registry)
    message = refusal(cache={"kvs": "memory", "type": "redis"})
    assert "kvs.cache: 'kvs' is 'memory' and 'type' is 'redis'" in message


def test_the_object_of_the_caller_is_not_changed() -> None:
    options: dict[str, Any] = {"type": "memory", "kvs_kwargs": {"max_bytes": 1000}}
    configure(cache=options)
    assert options == {"type": "memory", "kvs_kwargs": {"max_bytes": 1000}}


def test_kvs_kwargs_may_have_objects_that_cannot_be_copied() -> None:
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


@pytest.mark.parametrize(
    ("value", "example"),
    [
        ("redis", '{"kvs": "redis"}'),
        ('"memory"', '{"kvs": "memory"}'),
        (" memcached\n", '{"kvs": "memcache"}'),
        ("on", '{"kvs": "redis"}'),
        ("7", '{"kvs": "redis"}'),
        ("rediss://u:hunter2@h/0", '"redis", "kvs_kwargs": {"url": "rediss://***@h/0"}}'),
        ("memcached://h:11211/", '"memcache", "kvs_kwargs": {"servers": ["h:11211"]}}'),
        (
            "postgresql+psycopg2://u:hunter2@h/db",
            '"postgresql", "kvs_kwargs": {"url": "postgresql://***@h/db"}}',
        ),
        ("valkey", '{"kvs": "redis"}'),
        ("valkeys://u:hunter2@h", '"redis", "kvs_kwargs": {"url": "valkeys://***@h"}}'),
        ("redis+cluster://u:hunter2@h,i", '"kvs_kwargs": {"url": "redis+cluster://***@h,i"}}'),
        ("redis+clutser://u:hunter2@h,i", '"kvs_kwargs": {"url": "redis+cluster://***@h,i"}}'),
        (
            "rediss+sentinel://u:hunter2@h:1,i:2/main/0",
            '"redis", "kvs_kwargs": {"url": "rediss+sentinel://***@h:1,i:2/main/0"}}',
        ),
        ("http://u:hunter2@h", '{"kvs": "redis"}'),
    ],
)
@pytest.mark.parametrize("feature", ["cache", "session", "perlsess"])
def test_a_bare_name_or_url_is_shown_an_example(feature: str, value: str, example: str) -> None:
    message = refusal(**{feature: value})
    assert f"kvs.{feature}: " in message
    assert example in message
    assert "hunter2" not in message


def test_a_url_of_sqlalchemy_is_shown_without_its_driver() -> None:
    kwargs = {"url": "postgresql+psycopg2://u:hunter2@h/db"}
    message = refusal(cache={"kvs": "postgresql", "kvs_kwargs": kwargs})
    assert "; write postgresql://***@h/db" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("kvs", "url", "example"),
    [
        ("redis", "postgresql://u:hunter2@h/db", '{"kvs": "postgresql", "kvs_kwargs": {"url": '),
        ("valkey", "memcached://u:hunter2@h", '{"kvs": "memcache", "kvs_kwargs": {"servers": '),
        ("postgresql", "redis+sentinel://u:hunter2@h/main", '"url": "redis+sentinel://***@h/main"'),
    ],
)
def test_a_url_of_another_driver_is_shown_its_driver(kvs: str, url: str, example: str) -> None:
    message = refusal(cache={"kvs": kvs, "kvs_kwargs": {"url": url}})
    assert f"; write {example}" in message or f'kvs_kwargs": {{{example}' in message
    assert "hunter2" not in message


def test_a_url_with_a_misspelled_scheme() -> None:
    url = "redis+clutser://u:hunter2@h1:1,h2:2"
    message = refusal(cache={"kvs": "redis", "kvs_kwargs": {"url": url}})
    assert "did you mean 'redis+cluster'?" in message
    assert "hunter2" not in message


def test_a_database_of_a_cluster() -> None:
    message = refusal(cache={"kvs": "redis", "kvs_kwargs": {"url": "redis+cluster://h/1"}})
    assert "kvs.cache: kvs_kwargs: " in message
    assert "the database is 1, but a cluster has database 0 only" in message


def test_a_url_in_place_of_a_driver_is_shown_an_example() -> None:
    message = refusal(cache={"kvs": "redis://u:hunter2@h/0"})
    assert "unknown driver 'redis://***@h/0'" in message
    assert 'write {"kvs": "redis", "kvs_kwargs": {"url": "redis://***@h/0"}}' in message


def test_a_url_as_kvs_kwargs_is_not_shown() -> None:
    message = refusal(cache={"kvs": "redis", "kvs_kwargs": "redis://u:hunter2@h"})
    assert "kvs_kwargs: found a value that is not shown, expected an object" in message
    assert 'for example {"url": "redis://localhost:6379/0"}' in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("url", '"kvs_kwargs": {"url": "redis://localhost:6379/0"}'),
        ("host", '"kvs_kwargs": {"host": "localhost"}'),
        ("port", '"kvs_kwargs": {"port": 6379}'),
        ("password", '"kvs_kwargs": {"password": "..."}'),
        ("server", '"kvs_kwargs": {"servers": ["127.0.0.1:11211"]}'),
        ("servers", '"kvs_kwargs": {"servers": ["127.0.0.1:11211"]}'),
    ],
)
def test_an_argument_of_the_client_beside_kvs_is_shown_its_place(key: str, place: str) -> None:
    message = refusal(cache={"kvs": "redis", key: "redis://u:hunter2@h"})
    assert f"kvs.cache: unknown key {key!r}, which belongs inside 'kvs_kwargs'" in message
    assert place in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("feature", "key", "meant"),
    [
        ("session", "timeout", "ttl"),
        ("session", "cookie_name", "key_name"),
        ("session", "reissue_time", "cookie_refresh"),
        ("session", "Serializer", "codec"),
        ("session", "max_age", "cookie_max_age"),
        ("cache", "backend", "kvs"),
        ("ratelimit", "rate", "limit"),
        ("ratelimit", "per", "window"),
        ("ratelimit", "dry_run", "mode"),
        ("ratelimit", "statuses", "count"),
        ("ratelimit", "whitelist", "except"),
        ("perlsess", "cookie_nam", "cookie_name"),
    ],
)
def test_a_key_of_another_library_is_recognized(feature: str, key: str, meant: str) -> None:
    message = refusal(**{feature: {"kvs": "memory", key: 5}})
    assert f"unknown key {key!r} (known: " in message
    assert f"; did you mean {meant!r}?)" in message


def test_a_word_of_another_library_names_no_key_that_the_setting_does_not_have() -> None:
    assert "did you mean" not in refusal(cache={"kvs": "memory", "requests": 5})


@pytest.mark.parametrize(
    "by", ["redis://u:hunter2@h", "redis://u:hunter2@h.x", "header:redis://u:hunter2@h"]
)
def test_a_url_as_an_identity_shows_no_secret(by: str) -> None:
    message = refusal(session={"kvs": "memory"}, ratelimit={"by": by})
    assert "kvs.ratelimit: by: " in message
    assert "hunter2" not in message


def test_a_bare_name_as_a_limit_is_shown_an_example() -> None:
    message = refusal(session={"kvs": "memory"}, ratelimit="on")
    assert 'write an object, for example {"limit": 100, "window": 60}' in message


def test_memcached_has_servers() -> None:
    message = refusal(cache={"kvs": "memcache", "kvs_kwargs": {"server": "127.0.0.1:11211"}})
    assert "did you mean 'servers'?" in message


@pytest.mark.parametrize(
    ("driver", "written", "meant"),
    [
        ("memory", "max_byte", "max_bytes"),
        ("memcache", "server", "servers"),
        ("redis", "hst", "host"),
    ],
)
def test_an_unknown_argument_of_a_client_names_no_function(
    driver: str, written: str, meant: str
) -> None:
    message = refusal(cache={"kvs": driver, "kvs_kwargs": {written: 1}})
    assert f'client refuses {{"{written}": 1}}: unexpected keyword argument {written!r}' in message
    assert f"did you mean {meant!r}?" in message


@pytest.mark.parametrize("value", [5, True, b"redis"])
@pytest.mark.parametrize("feature", ["cache", "session", "ratelimit", "perlsess"])
def test_a_value_of_another_type_is_no_object(feature: str, value: Any) -> None:
    message = refusal(**{feature: value})
    assert f"kvs.{feature}: found " in message
    assert "expected an object, for example {" in message


@pytest.mark.parametrize("feature", ["cache", "session", "ratelimit", "perlsess"])
def test_a_refusal_ends_with_its_setting(feature: str) -> None:
    """Pyramid adds where the configuration comes from: a setting, instead of a line of code."""
    features = {"session": {"kvs": "memory"}, feature: {"kvs": "memory", "tll": 5}}
    assert refusal(**features).endswith(f"in:\n  the setting kvs.{feature}")


def test_a_conflict_names_its_setting() -> None:
    config = Configurator(settings={"kvs.cache": {"kvs": "memory"}})
    config.include("pyramid_kvs")
    config.include(lambda config: config.add_request_method(lambda request: 1, "cache"))
    with pytest.raises(ConfigurationConflictError, match=r"the setting kvs\.cache"):
        config.commit()


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
        ({"kvs": "redis", "kvs_kwargs": {"pwd": "hunter2"}}, "hunter2"),
        ({"kvs": "redis", "kvs_kwargs": {"auth": "hunter2"}}, "hunter2"),
        ({"kvs": "redis", "kvs_kwargs": {"dsn": "hunter2"}}, "hunter2"),
        ({"kvs": "redis", "kvs_kwargs": {"url": b"redis://u:hunter2@h"}}, "hunter2"),
        ({"kvs": "memcache", "kvs_kwargs": {"servers": ["u:hunter2@h:x"]}}, "hunter2"),
        ({"kvs": "redis://u:hunter2@h"}, "hunter2"),
        ({"kvs": "redis", "type": "redis://u:hunter2@h"}, "hunter2"),
        ({"kvs": "memory", "codec": "redis://u:hunter2@h"}, "hunter2"),
        ({"kvs": "memory", "fallback_codec": "redis://u:hunter2@h"}, "hunter2"),
        ({"kvs": "memory", "redis://u:hunter2@h": 1}, "hunter2"),
        ('{"redis://u:hunter2@h": 1, "redis://u:hunter2@h": 2}', "hunter2"),
    ],
)
def test_a_refusal_shows_no_secret(options: Any, hidden: str) -> None:
    assert hidden not in refusal(cache=options)


def test_a_misspelled_setting_stops_the_start() -> None:
    message = refusal(sesion={"kvs": "memory"})
    assert "unknown setting 'kvs.sesion'" in message
    assert "did you mean 'kvs.session'?" in message


def test_an_unknown_setting_is_logged(caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_secret_that_signs_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    configure(cache={"kvs": "memory", "secret": "s3cret", "codec": "pickle"})
    assert caplog.text == ""
    configure(cache={"kvs": "memory", "secret": "s3cret"})
    assert "kvs.cache: secret signs pickled values" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    "features",
    [
        {"session": {"kvs": "memory", "codec": "pickle"}},
        {"cache": {"kvs": "redis", "codec": "pickle"}},
        {"perlsess": {"kvs": "memory", "codec": "pickle"}},
    ],
)
def test_an_unsigned_pickle_codec_is_logged_once(
    features: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    configure(**features)
    (feature,) = features
    (message,) = caplog.messages
    assert message.startswith(f"kvs.{feature}: codec pickle without a secret: anyone who can write")


@pytest.mark.parametrize(
    "features",
    [
        {"cache": {"kvs": "memory", "codec": "pickle"}},
        {"session": {"kvs": "redis", "codec": "pickle", "secret": "s3cret"}},
        {"session": {"kvs": "redis", "fallback_codec": "pickle"}},
    ],
)
def test_a_pickle_codec_that_others_cannot_abuse_is_not_logged(
    features: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A fallback codec is logged when it reads something."""
    configure(**features)
    assert caplog.messages == []
