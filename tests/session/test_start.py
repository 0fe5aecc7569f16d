"""Settings that contradict each other stop the start, with an error that says what to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import ISessionFactory
from pyramid.session import SignedCookieSessionFactory

from pyramid_kvs.application import Application
from pyramid_kvs.session import SessionFactory

MEMORY = {"kvs": "memory"}
Configure = Callable[[Configurator], None]

# -- another session factory -----------------------------------------------------------------


def other_factory(request: Any) -> Any:
    raise NotImplementedError


def add_on(config: Configurator) -> None:
    config.set_session_factory(other_factory)


def by_argument(settings: dict[str, Any]) -> Configurator:
    return Configurator(settings=settings, session_factory=other_factory)


def by_argument_and_include_in_code(settings: dict[str, Any]) -> Configurator:
    config = Configurator(settings=without_includes(settings), session_factory=other_factory)
    config.include("pyramid_kvs")
    return config


def by_a_call_before(settings: dict[str, Any]) -> Configurator:
    config = Configurator(settings=without_includes(settings))
    config.set_session_factory(other_factory)
    config.include("pyramid_kvs")
    return config


def by_a_call_afterwards(settings: dict[str, Any]) -> Configurator:
    config = Configurator(settings=settings)
    config.set_session_factory(other_factory)
    return config


def by_an_add_on(settings: dict[str, Any]) -> Configurator:
    config = Configurator(settings=settings)
    config.include(add_on)
    return config


def by_an_add_on_before(settings: dict[str, Any]) -> Configurator:
    config = Configurator(settings=without_includes(settings))
    config.include(add_on)
    config.include("pyramid_kvs")
    return config


def by_an_earlier_commit(settings: dict[str, Any]) -> Configurator:
    config = Configurator(settings=without_includes(settings))
    config.set_session_factory(other_factory)
    config.commit()
    config.include("pyramid_kvs")
    return config


def by_a_later_commit(settings: dict[str, Any]) -> Configurator:
    config = Configurator(settings=settings)
    config.commit()
    config.set_session_factory(other_factory)
    return config


def with_autocommit(settings: dict[str, Any]) -> Configurator:
    config = Configurator(settings=without_includes(settings), autocommit=True)
    config.include("pyramid_kvs")
    config.set_session_factory(other_factory)
    return config


def without_includes(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "pyramid.includes"}


WAYS = [
    *(by_argument, by_argument_and_include_in_code, by_a_call_before, by_a_call_afterwards),
    *(by_an_add_on, by_an_add_on_before, by_an_earlier_commit, by_a_later_commit),
    with_autocommit,
]


@pytest.mark.parametrize("way", WAYS)
def test_another_session_factory_is_refused(way: Callable[..., Configurator]) -> None:
    settings = {"kvs.session": MEMORY, "pyramid.includes": "pyramid_kvs"}
    with pytest.raises(ConfigurationError) as raised:
        way(settings).make_wsgi_app()
    message = str(raised.value)
    assert "kvs.session: another session factory is set too" in message
    assert f"{__name__}.other_factory: remove the setting kvs.session, or" in message


@pytest.mark.parametrize("way", WAYS)
def test_without_the_setting_the_other_factory_is_used(way: Callable[..., Configurator]) -> None:
    config = way({"pyramid.includes": "pyramid_kvs"})
    config.make_wsgi_app()
    assert config.registry.getUtility(ISessionFactory) is other_factory


def test_a_factory_of_pyramid_is_named() -> None:
    config = Configurator(settings={"kvs.session": MEMORY, "pyramid.includes": "pyramid_kvs"})
    config.set_session_factory(SignedCookieSessionFactory("secret"))
    with pytest.raises(ConfigurationError, match=r"pyramid\.session\..*CookieSession"):
        config.make_wsgi_app()


@pytest.mark.parametrize("options", [{}, {"kvs.session": MEMORY}])
def test_a_factory_of_this_library_is_used(options: dict[str, Any]) -> None:
    config = Configurator(settings={**options, "pyramid.includes": "pyramid_kvs"})
    factory = SessionFactory({**MEMORY, "ttl": 7})
    config.set_session_factory(factory)
    config.make_wsgi_app()
    assert config.registry.getUtility(ISessionFactory) is factory


# -- prefixes on one store -------------------------------------------------------------------

REDIS = [
    {"url": "redis://localhost:6379/0"},
    {"url": "redis://localhost"},
    {"url": "redis://:secret@127.0.0.1:6379"},
    {"host": "localhost", "port": 6379},
    {"host": "127.0.0.1"},
    {},
]
MEMCACHE = [
    {"servers": ["127.0.0.1:11211"]},
    {"servers": ["10.0.0.1:11211", "localhost:11211"]},
    {"servers": [["127.0.0.1:11211", 2]]},
]
POSTGRESQL = [
    {"url": "postgresql://localhost:5432/shop"},
    {"url": "host=127.0.0.1 dbname=shop"},
    {"url": "postgresql://ann:secret@10.0.0.1,localhost/shop", "table": "public.kvs"},
]


def start(cache: Any, session: Any = None, perlsess: Any = None, *configure: Configure) -> None:
    named = {"kvs.cache": cache, "kvs.session": session, "kvs.perlsess": perlsess}
    config = Configurator(settings={**named, "pyramid.includes": "pyramid_kvs"})
    config.commit()
    for call in configure:
        call(config)
    for check in Application.of(config.registry).start_checks:
        check()


def store(kvs: str, kwargs: dict[str, Any], prefix: str | None = None) -> dict[str, Any]:
    chosen = {} if prefix is None else {"key_prefix": prefix}
    return {"kvs": kvs, "kvs_kwargs": kwargs, **chosen}


PAIRS = [
    (kvs, one, other)
    for kvs, ways in (("redis", REDIS), ("memcache", MEMCACHE), ("postgresql", POSTGRESQL))
    for one in ways
    for other in ways
]


@pytest.mark.parametrize(("kvs", "one", "other"), PAIRS)
def test_one_prefix_on_one_store_is_refused(
    kvs: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=r"kvs.cache: key_prefix: found 'x::'") as raised:
        start(store(kvs, one, "x::"), store(kvs, other, "x::"))
    assert 'for example "cache::" and "session::"' in str(raised.value)
    assert "secret" not in str(raised.value)
    start(store(kvs, one), store(kvs, other), store(kvs, one))  # the default prefixes


@pytest.mark.parametrize(
    ("cache", "session", "consequence"),
    [
        ("a::", "a::", "flush() would remove all sessions"),
        ("", "session::", "flush() would remove all sessions"),
        ("s", "session::", "flush() would remove all sessions"),
        ("session::cache::", "session::", "could open a cached value as a session"),
        ("cache::", "", "could open a cached value as a session"),
        ("é", "", "could open a cached value as a session"),
    ],
)
@pytest.mark.parametrize("by_setting", [True, False])
def test_a_prefix_that_begins_or_continues_the_other_is_refused(
    cache: str, session: str, consequence: str, by_setting: bool
) -> None:
    shared = store("memory", {"name": "shared"}, session)

    def set_factory(config: Configurator) -> None:
        config.set_session_factory(SessionFactory(shared))
        config.commit()

    sources = [shared] if by_setting else [None, None, set_factory]
    with pytest.raises(ConfigurationError) as raised:
        start(store("memory", {"name": "shared"}, cache), *sources)
    assert consequence in str(raised.value)


@pytest.mark.parametrize(
    ("cache", "session"),
    [
        (store("redis", {}, "x"), store("redis", {"db": 1}, "x")),
        (store("redis", {}, "x"), store("redis", {"port": 6380}, "x")),
        (store("redis", {}, "x"), store("memcache", {"servers": ["localhost:6379"]}, "x")),
        (store("memory", {}, "x"), store("memory", {}, "x")),
        (store("memory", {"name": "a"}, "x"), store("memory", {"name": "b"}, "x")),
        (store("memory", {"name": "a"}, "x"), store("memory", {"name": "a"}, "y")),
        (
            store("memcache", {"servers": ["10.0.0.1:11211"]}, "x"),
            store("memcache", {"servers": ["10.0.0.2:11211"]}, "x"),
        ),
        (
            store("postgresql", {"url": "postgresql://localhost/a"}, "x"),
            store("postgresql", {"url": "postgresql://localhost/b"}, "x"),
        ),
        (
            store("postgresql", {"url": "postgresql://localhost/a"}, "x"),
            store("postgresql", {"url": "postgresql://localhost/a", "table": "other"}, "x"),
        ),
        (
            store("postgresql", {"url": "service=one"}, "x"),
            store("postgresql", {"url": "service=two"}, "x"),
        ),
    ],
)
def test_separate_stores_may_have_one_prefix(cache: Any, session: Any) -> None:
    start(cache, session)


@pytest.mark.parametrize(
    ("cache", "perl", "is_refused"),
    [
        ("p::", {"key_prefix": "p::"}, True),
        ("", {"key_prefix": ""}, True),
        ("sess", {"key_prefix": "", "key_format": "session:{id}"}, True),
        ("session:", {"key_prefix": "", "key_format": "session:{id}"}, True),
        ("cache::", {"key_prefix": ""}, False),
        ("p::cache::", {"key_prefix": "p::"}, False),
    ],
)
def test_a_flush_may_not_remove_perl_sessions(
    cache: str, perl: dict[str, Any], is_refused: bool
) -> None:
    shared = {"name": "shared"}
    settings = store("memory", shared, cache), None, {**store("memory", shared), **perl}
    if is_refused:
        with pytest.raises(ConfigurationError, match=r"kvs.perlsess.*flush\(\) would remove all"):
            start(*settings)
    else:
        start(*settings)


def test_an_application_does_not_start() -> None:
    shared = store("memory", {"name": "shared"}, "x::")
    settings = {"kvs.cache": shared, "kvs.session": shared, "pyramid.includes": "pyramid_kvs"}
    with pytest.raises(ConfigurationError, match=r"kvs\.cache: key_prefix"):
        Configurator(settings=settings).make_wsgi_app()
