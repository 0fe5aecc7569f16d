"""The options in ``kvs_kwargs``."""

from __future__ import annotations

import json
import socket
from typing import Any

import memcache
import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

from pyramid_kvs.drivers.memcache.options import NAMES, UNUSED
from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS, named_parameters

from .helpers import Start, connect


@pytest.mark.parametrize(
    "servers",
    [[], "127.0.0.1:11211", None, [["127.0.0.1:11211"]], [7], [["127.0.0.1:11211", 0]], {"a": 1}],
)
def test_servers_of_another_form(servers: Any) -> None:
    with pytest.raises(ValueError, match=r'servers: .*"127\.0\.0\.1:11211"'):
        KVS("memcache", {"servers": servers})


def test_a_url_of_a_server_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match=r'expected a list such as \["127.*found ') as raised:
        KVS("memcache", {"servers": ["memcached://u:s3cret@127.0.0.1:11211"]})
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("socket_timeout", 0),
        ("socket_timeout", None),
        ("socket_timeout", "1"),
        ("socket_connect_timeout", -1),
        ("dead_retry", -1),
        ("breaker", -1),
        ("breaker", "1"),
        ("pool_timeout", 0),
        ("max_backlog", -2),
        ("rehash", None),
        ("max_connections", 0),
        ("rehash", "no"),
        ("server_max_value_length", "1000"),
        ("server_max_value_length", -1),
        ("key_encoder", "utf-8"),
    ],
)
def test_options_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        connect("127.0.0.1:11211", **{option: value})


@pytest.mark.parametrize("name", sorted(UNUSED))
def test_an_option_without_effect_is_refused(name: str) -> None:
    """The message says why, and what to do instead."""
    with pytest.raises(ValueError, match=f"^{name}: this option has no effect here: .{{20}}"):
        connect("127.0.0.1:11211", **{name: 1})


def test_each_option_of_python_memcached_is_used_or_refused() -> None:
    assert named_parameters(memcache.Client) <= NAMES | UNUSED.keys()
    assert not NAMES & UNUSED.keys()


def test_a_setting_says_why_an_option_is_refused() -> None:
    for name, reason in {
        "pickler": 'values are encoded by a codec; choose it with "codec"',
        "server_max_key_length": "always replaced by its hash",
    }.items():
        kwargs = {"servers": ["127.0.0.1:11211"], name: 1}
        setting = json.dumps({"kvs": "memcache", "kvs_kwargs": kwargs})
        config = Configurator(settings={"kvs.cache": setting})
        config.include("pyramid_kvs")
        with pytest.raises(ConfigurationError, match=reason) as caught:
            config.commit()
        assert "did you mean" not in str(caught.value)


def test_two_options_that_say_the_same() -> None:
    with pytest.raises(ValueError, match="dead_retry and breaker"):
        connect("127.0.0.1:11211", dead_retry=2, breaker=2)
    with pytest.raises(ValueError, match=r"breaker: found 0, .* rehash"):
        connect("127.0.0.1:11211", rehash=True, breaker=0)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="sever"):
        connect("127.0.0.1:11211", sever=1)
    with pytest.raises(TypeError, match="'server'"):
        KVS("memcache", {"server": "127.0.0.1:11211"})
    with pytest.raises(ValueError, match="servers: expected"):
        KVS("memcache", {})
    with pytest.raises(ValueError, match="servers: expected a list"):
        connect("http://127.0.0.1:11211/")
    with pytest.raises(ValueError, match="found port 99999 of 127"):
        connect("127.0.0.1:99999")


def test_a_unix_socket(own_memcached: Start) -> None:
    kvs = connect(own_memcached(unix=True))
    kvs.set("key", 1)
    assert kvs.get("key") == 1


def test_ipv6(own_memcached: Start) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = own_memcached("-l", "::1")
    kvs = connect(f"inet6:[::1]:{server.port}")
    kvs.set("key", 1)
    assert kvs.get("key") == 1


def test_dead_retry_spares_a_server_that_failed(own_memcached: Start) -> None:
    server = own_memcached()
    kvs = connect(server, dead_retry=60)
    server.kill()
    with pytest.raises(KVSUnavailable, match="refused"):
        kvs.get("key")
    server.start()
    with pytest.raises(KVSUnavailable, match="a moment ago"):
        kvs.get("key")
