"""``kvs_kwargs`` of each driver: what a page describes is accepted, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

from pyramid_kvs.kvs import driver_class
from pyramid_kvs.kvs.hooks import named_parameters

ROOT = Path(__file__).parents[2]

#: The page that describes the options of a driver, and the words after its list of options.
PAGES = {
    "redis": ("redis", "These options are refused"),
    "memcache": ("memcache", "Use of python-memcached\n"),
    "postgresql": ("postgresql", "\nThe table\n"),
    "memory": ("drivers", "\nUsing a driver directly\n"),
}

#: What a driver needs to be made.
REQUIRED: dict[str, dict[str, Any]] = {"memcache": {"servers": ["127.0.0.1:11211"]}}

#: Misspelt options, and the ones that are meant.
MISSPELT = [
    ("redis", "socket_timout", "socket_timeout"),
    ("redis", "pool_timout", "pool_timeout"),
    ("redis", "ssl_ca_cert", "ssl_ca_certs"),
    ("memcache", "socket_timout", "socket_timeout"),
    ("memcache", "max_connection", "max_connections"),
    ("postgresql", "pool_sise", "pool_size"),
    ("postgresql", "statement_timout", "statement_timeout"),
    ("memory", "max_byte", "max_bytes"),
    ("memory", "nane", "name"),
]


def described(driver: str) -> set[str]:
    """Return the options that a page describes: the terms of its list, and names in their text."""
    page, end = PAGES[driver]
    text = (ROOT / f"docs/{page}.rst").read_text(encoding="utf-8")
    options = text[text.index("``kvs_kwargs`` accepts") : text.index(end)]
    terms = [line for line in options.splitlines() if line.startswith("``")]
    if driver == "redis":  # the other options of TLS, and credential_provider
        terms += re.findall(r"``(?:ssl_\w+|credential_provider)``", options)
    names = re.findall(r"``(\w+)``", "\n".join(line.partition("(")[0] for line in terms))
    return set(names) - {"kvs_kwargs"}


def accepted(driver: str) -> set[str]:
    return set(driver_class(driver).client_arguments())


def start(driver: str, **kvs_kwargs: Any) -> None:
    kwargs = {**REQUIRED.get(driver, {}), **kvs_kwargs}
    settings = {"kvs.cache": {"kvs": driver, "kvs_kwargs": kwargs}}
    config = Configurator(settings=settings)
    config.include("pyramid_kvs")
    config.commit()


@pytest.mark.parametrize("driver", PAGES)
def test_every_option_is_described_on_the_page_of_its_driver(driver: str) -> None:
    assert accepted(driver) == described(driver) - unknown_to_this_redis_py(driver)


def unknown_to_this_redis_py(driver: str) -> set[str]:
    """Return the options that an older redis-py does not have."""
    if driver != "redis":
        return set()
    redis = pytest.importorskip("redis")
    options = pytest.importorskip("pyramid_kvs.drivers.redis.options")
    found: set[str] = options.ACCEPTED - options.NAMES - named_parameters(redis.Redis)
    return found


@pytest.mark.parametrize(("driver", "written", "meant"), MISSPELT)
def test_an_unknown_option_is_refused_with_the_closest_one(
    driver: str, written: str, meant: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        start(driver, **{written: 1})
    assert written in str(raised.value)
    assert f"did you mean {meant!r}?" in str(raised.value)


@pytest.mark.parametrize("value", [1, None, False])
def test_an_option_that_no_page_describes_is_refused_although_the_client_has_it(
    monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    """A newer redis-py has more options than the one that the tests have seen."""
    redis = pytest.importorskip("redis")
    known = redis.Redis.__init__

    def with_more(self: Any, *args: Any, future_option: Any = None, **kwargs: Any) -> None:
        known(self, *args, **kwargs)

    monkeypatch.setattr(redis.Redis, "__init__", with_more)
    with pytest.raises(ConfigurationError, match="future_option"):
        start("redis", future_option=value)


def test_an_unknown_option_in_the_query_of_a_url_is_refused_with_the_closest_one() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'socket_timeout'"):
        start("redis", url="redis://localhost:6379/0?socket_timout=1")
