"""The options in ``kvs_kwargs``: those of ``memcache.Client`` that the driver uses, and more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import memcache

from ...kvs.breaker import SECONDS as BREAKER_SECONDS
from ...kvs.breaker import check_seconds
from ...messages import quoted
from ..options import POOL_CHECKS, POSITIVE, SECONDS, Check, check, is_integer
from ..pool import TIMEOUT
from .protocol import LARGEST_ITEM

_VALUES_HAVE_CODECS = 'values are encoded by a codec; choose it with "codec" beside "kvs_kwargs"'
_KEYS_ARE_MAPPED = "a key that memcached does not accept is always replaced by its hash"
_NOT_COMPRESSED = "the driver does not compress what it writes; use a codec that compresses"

#: The parameters of ``memcache.Client`` that would have no effect, and what to do instead.
UNUSED = {
    "debug": "failures are raised and logged; configure the loggers below pyramid_kvs instead",
    "pickleProtocol": _VALUES_HAVE_CODECS,
    "pickler": _VALUES_HAVE_CODECS,
    "unpickler": _VALUES_HAVE_CODECS,
    "pload": _VALUES_HAVE_CODECS,
    "pid": _VALUES_HAVE_CODECS,
    "compressor": _NOT_COMPRESSED,
    "decompressor": f"values that python-memcached compressed are read; {_NOT_COMPRESSED}",
    "server_max_key_length": _KEYS_ARE_MAPPED,
    "check_keys": _KEYS_ARE_MAPPED,
    "cache_cas": "each compare-and-set uses the number that it read itself; call update()",
    "flush_on_reconnect": (
        'it would remove the keys of all applications; leave "rehash" out, so that keys do not move'
    ),
}

#: How long keys stay on another server with ``rehash``, in seconds.
REHASH_SECONDS = 2


class Options(NamedTuple):
    """The checked options; times are seconds."""

    servers: list[Any]
    rehash: bool = False
    socket_timeout: float = 0.5
    socket_connect_timeout: float | None = None
    dead_retry: float | None = None
    breaker: float | None = None
    max_connections: int = 100
    pool_timeout: float = TIMEOUT
    max_backlog: int = -1
    server_max_value_length: int | None = None
    key_encoder: Callable[[bytes], bytes] | None = None

    @property
    def connect_timeout(self) -> float:
        chosen = self.socket_connect_timeout
        return self.socket_timeout if chosen is None else chosen

    @property
    def largest(self) -> int:
        """The maximum size of an item in bytes."""
        return self.server_max_value_length or LARGEST_ITEM

    @property
    def is_left_alone_when_dead(self) -> bool:
        """Whether a server is left alone after each failure, and not only after a timeout."""
        return self.rehash or self.dead_retry is not None

    @property
    def seconds_alone(self) -> float:
        """How long a server that failed is left alone."""
        for chosen in (self.dead_retry, self.breaker):
            if chosen is not None:
                return chosen
        return REHASH_SECONDS if self.rehash else BREAKER_SECONDS

    def make_client(self) -> memcache.Client:
        """Return the client that parses the servers and knows their weights.

        :raises ValueError: a server is not valid.
        """
        client = memcache.Client(self.servers)
        for host in client.servers:
            if isinstance(host.address, tuple) and not 0 < host.address[1] < 65536:
                raise ValueError(
                    f"servers: found port {host.address[1]} of {host.address[0]}, "
                    "expected an integer from 1 to 65535"
                )
        return client


#: The names that ``kvs_kwargs`` may have.
NAMES = frozenset(Options._fields)


def read(given: Mapping[str, Any]) -> Options:
    """Return the options in ``kvs_kwargs``.

    :raises TypeError: an option is unknown.
    :raises ValueError: an option has no effect, or is out of range.
    """
    for name in given:
        if name in UNUSED:
            raise ValueError(f"{name}: this option has no effect here: {UNUSED[name]}")
        if name not in NAMES:
            raise TypeError(f"unexpected keyword argument {name!r}")
    if "breaker" in given:
        check_seconds(given["breaker"])
    options = Options(**{**given, "servers": _servers(given.get("servers"))})
    for name, allowed in _CHECKS.items():
        found = getattr(options, name)
        if not (found is None and name in _OPTIONAL):
            check(name, found, allowed)
    _check_breaker(options)
    return options


def _servers(servers: Any) -> list[Any]:
    """Return the servers as python-memcached expects them, with tuples; JSON has only lists."""
    expected = (
        'servers: expected a list such as ["127.0.0.1:11211"], '
        '["unix:/run/memcached/socket"] or [["10.0.0.1:11211", 2], ["10.0.0.2:11211", 1]]'
    )
    if not isinstance(servers, (list, tuple)) or not servers:
        raise ValueError(expected)
    listed = [tuple(server) if isinstance(server, list) else server for server in servers]
    for server in listed:
        host, weight = server if isinstance(server, tuple) and len(server) == 2 else (server, 1)
        is_host = isinstance(host, str) and "://" not in host
        if not is_host or type(weight) is not int or weight < 1:
            raise ValueError(f"{expected}; found {quoted(server)}")
    return listed


_CHECKS: dict[str, Check] = {
    "rehash": (lambda value: type(value) is bool, "true or false"),
    "socket_timeout": SECONDS,
    "socket_connect_timeout": SECONDS,
    "dead_retry": SECONDS,
    "max_connections": POSITIVE,
    "server_max_value_length": (is_integer(0), "a positive integer, or 0 for no limit"),
    "key_encoder": (callable, "a function"),
    **POOL_CHECKS,
}

#: The options for which ``None`` means that they are not set.
_OPTIONAL = {"socket_connect_timeout", "dead_retry", "server_max_value_length", "key_encoder"}


def _check_breaker(options: Options) -> None:
    if options.breaker is None:
        return
    if options.dead_retry is not None:
        raise ValueError(
            "dead_retry and breaker: both say how long a server is left alone; keep one"
        )
    if options.rehash and not options.breaker:
        raise ValueError("breaker: found 0, expected more than 0 seconds with rehash")
