"""Kinto's settings, and the errors for values that are not allowed."""

from __future__ import annotations

from typing import Any

import pytest
from pyramid.exceptions import ConfigurationError

from tests.kinto.stores import NAMES, SERVED, load

URLS = {
    "redis": {"cache_url": "redis://localhost:1/0"},
    "memcached": {"cache_hosts": "localhost:1"},
    "postgresql": {"cache_url": "postgresql://localhost:1/kinto"},
    "memory": {},
}


def refusal(name: str, **settings: Any) -> str:
    """Return the error at the start of the backend."""
    with pytest.raises(ConfigurationError) as raised:
        load(name, **{**URLS[name], **settings})
    return str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_start_needs_no_server(name: str) -> None:
    assert load(name, **URLS[name]).prefix == ""


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("value", ["", "  ", None])
def test_the_store_must_be_named(name: str, value: Any) -> None:
    (setting,) = URLS[name]
    assert refusal(name, **{setting: value}).startswith(f"{setting} is missing")


@pytest.mark.parametrize(
    ("value", "prefix"), [("stack1_", "stack1_"), (42, "42"), ("007", "007"), (None, "")]
)
@pytest.mark.parametrize("name", NAMES)
def test_prefix(name: str, value: Any, prefix: str) -> None:
    """Kinto parses digits to numbers."""
    assert load(name, **URLS[name], cache_prefix=value).prefix == prefix


@pytest.mark.parametrize("value", [True, 1000.0, ["a"]])
@pytest.mark.parametrize("name", NAMES)
def test_a_prefix_is_a_string(name: str, value: Any) -> None:
    assert refusal(name, cache_prefix=value).startswith("cache_prefix: found ")


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        (
            "cache_pool_size",
            "many",
            'cache_pool_size: found "many", expected a positive integer',
        ),
        ("cache_pool_size", 0, "cache_pool_size: found 0, expected a positive integer"),
        ("cache_pool_size", True, "cache_pool_size: found true"),
        ("cache_pool_size", 2.5, "cache_pool_size: found 2.5"),
        ("cache_max_overflow", "-2", 'cache_max_overflow: found "-2", expected 0'),
        ("cache_max_overflow", -2, "a positive integer, or -1 for no limit"),
        ("cache_max_backlog", "x", 'cache_max_backlog: found "x"'),
        ("cache_pool_timeout", "0", 'cache_pool_timeout: found "0", expected a positive number'),
        ("cache_pool_timeout", "nan", 'cache_pool_timeout: found "nan"'),
    ],
)
@pytest.mark.parametrize("name", SERVED)
def test_pool_settings_are_numbers(name: str, setting: str, value: Any, expected: str) -> None:
    assert expected in refusal(name, **{setting: value})


@pytest.mark.parametrize("value", ["0", "-2", "soon", False])
def test_recycle_is_a_number_or_never(value: Any) -> None:
    expected = "expected a positive number of seconds, or -1 for never"
    assert expected in refusal("postgresql", cache_pool_recycle=value)


@pytest.mark.parametrize("value", ["0", "1 MB", -5, 2.5])
def test_size_of_memory_is_an_integer(value: Any) -> None:
    expected = "expected a positive integer"
    assert expected in refusal("memory", cache_max_size_bytes=value)


@pytest.mark.parametrize(
    "setting",
    [
        {"cache_pool_size": "10"},
        {"cache_max_overflow": "-1"},
        {"cache_max_backlog": 0},
        {"cache_pool_timeout": "0.5"},
        {"cache_pool_recycle": -1},
        {"cache_pool_recycle": "1800"},
        {"cache_max_size_bytes": "1000000"},
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_allowed_settings(name: str, setting: dict[str, Any]) -> None:
    assert load(name, **URLS[name], **setting).prefix == ""


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("redis", "postgresql://kinto:s3cret@localhost/kinto"),
        ("redis", "redis://kinto:s3cret@localhost:70000/0"),
        ("redis", "redis://kinto:s3cret/x@localhost:6379/zero"),
        ("postgresql", "redis://kinto:s3cret@localhost/0"),
        ("postgresql", "postgresql://kinto:s3cret@[/kinto"),
    ],
)
def test_a_wrong_url_stops_the_start(name: str, url: str) -> None:
    """The message names the setting and hides the password."""
    message = refusal(name, cache_url=url)
    assert message.startswith("cache_url: ")
    assert "s3cret" not in message


@pytest.mark.parametrize("name", ["redis", "postgresql"])
def test_a_url_is_a_string(name: str) -> None:
    assert refusal(name, cache_url=["s3cret"]) == (
        "cache_url: found a value that is not shown, expected a URL"
    )


@pytest.mark.parametrize("value", [6379, ["a", 1], {"a": 1}])
def test_hosts_are_strings(value: Any) -> None:
    assert "expected servers separated by whitespace" in refusal("memcached", cache_hosts=value)


@pytest.mark.parametrize("value", ["host:port", "http://localhost:11211"])
def test_an_invalid_host(value: str) -> None:
    assert refusal("memcached", cache_hosts=value).startswith("cache_hosts: ")


def test_memory_of_several_processes_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "1")
    load("memory")
    assert caplog.messages == []
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    load("memory")
    (line,) = caplog.messages
    assert line.startswith("pyramid_kvs.kinto.memory (cache_backend): the data are in this")
