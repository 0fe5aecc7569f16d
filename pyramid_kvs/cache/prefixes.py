"""The key prefixes of a cache and of the sessions on the same store."""

from __future__ import annotations

from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import ISessionFactory
from pyramid.registry import Registry

from ..application import Application
from ..kvs import KVS, decode_key
from ..messages import quoted
from .settings import SETTING

#: The host that these names mean.
_LOOPBACK = ("localhost", "[::1]", "::1")


def check_prefixes(registry: Registry) -> None:
    """Refuse a cache whose keys could be those of sessions.

    :raises ConfigurationError: its prefix equals, begins or continues that of the sessions on the
        same store, or begins that of the Perl sessions.
    """
    features = Application.of(registry).features
    cache: KVS = features[SETTING].client
    sessions = getattr(registry.queryUtility(ISessionFactory), "driver", None)
    if isinstance(sessions, KVS) and _is_same_store(cache, sessions):
        _check_flush(cache, "kvs.session", sessions.key_prefix)
        if cache.key_prefix.startswith(sessions.key_prefix):
            raise _refusal(
                cache,
                "kvs.session",
                sessions.key_prefix,
                "a cookie or a token could open a cached value as a session",
            )
    perl_sessions = features.get("kvs.perlsess")
    if perl_sessions is not None and _is_same_store(cache, perl_sessions.driver):
        _check_flush(cache, "kvs.perlsess", perl_sessions.key_prefix)


def _check_flush(cache: KVS, setting: str, prefix: bytes) -> None:
    if prefix.startswith(cache.key_prefix):
        raise _refusal(cache, setting, prefix, "request.cache.flush() would remove all sessions")


def _refusal(cache: KVS, setting: str, prefix: bytes, consequence: str) -> ConfigurationError:
    found, other = (quoted(decode_key(key)) for key in (cache.key_prefix, prefix))
    return ConfigurationError(
        f"{SETTING}: key_prefix: found {found} on the store of {setting}, whose keys begin with "
        f"{other}: {consequence}; write prefixes of which neither begins with the other, for "
        f'example "cache::" and "session::"'
    )


def _is_same_store(one: KVS, other: KVS) -> bool:
    return not _places(one).isdisjoint(_places(other))


def _places(driver: KVS) -> frozenset[str]:
    places = driver.places()
    for name in _LOOPBACK:
        places = frozenset(place.replace(name, "127.0.0.1") for place in places)
    return places
