"""Drivers by name, and drivers that were written for 1.0."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from webtest import TestApp

from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.kvs import KVS, driver_class, driver_names, register
from pyramid_kvs.kvs import names as registry


class DictClient:
    """A client library as 1.0's base class expected it."""

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs
        self.data: dict[bytes, Any] = {}
        self.calls: list[tuple[Any, ...]] = []

    def get(self, key: bytes) -> Any:
        self.calls.append(("get", key))
        return self.data.get(key)

    def set(self, key: bytes, value: Any, ttl: Any) -> None:
        self.calls.append(("set", key, value, ttl))
        self.data[key] = value

    def delete(self, key: bytes) -> None:
        self.calls.append(("delete", key))
        self.data.pop(key, None)


class ClientOnly(KVS):
    """The least that 1.0 asked of a driver."""

    def _create_client(self, **kwargs: Any) -> DictClient:
        return DictClient(**kwargs)


class WithHooks(KVS):
    """All that 1.0 let a driver define, with 1.0's arguments and results."""

    def _create_client(self, **kwargs: Any) -> dict[bytes, Any]:
        self.seen: list[tuple[Any, ...]] = []
        return {}

    def raw_get(self, key: str, default: Any = None) -> Any:
        return self._client.get(self._get_key(key), default)

    def raw_set(self, key: str, value: Any, ttl: Any) -> None:
        self.seen.append(("raw_set", key, value, ttl))
        self._client[self._get_key(key)] = value

    def delete(self, key: str) -> None:
        self.seen.append(("delete", key))
        del self._client[self._get_key(key)]

    def incr(self, key: str) -> int:
        self.seen.append(("incr", key))
        full_key = self._get_key(key)
        self._client[full_key] = str(int(self._client.get(full_key, 0)) + 1)
        return int(self._client[full_key])

    def get_keys(self, pattern: str) -> list[str]:
        assert pattern == "*"
        return [key[len(self.key_prefix) :].decode() for key in self._client]


class CallsSuper(ClientOnly):
    def delete(self, key: str) -> None:
        super().delete(key)

    def incr(self, key: str) -> int:
        return super().incr(key)


class CallsHooks(WithHooks):
    """Extends the hooks of another driver, as 1.0 let it."""

    def delete(self, key: str) -> None:
        self.seen.append(("before delete", key))
        super().delete(key)

    def incr(self, key: str) -> int:
        self.seen.append(("before incr", key))
        return super().incr(key)


class WithoutClient(KVS):
    """Keeps its data itself, and its counters as numbers."""

    def raw_get(self, key: str, default: Any = None) -> Any:
        return vars(self).get(key, default)

    def raw_set(self, key: str, value: Any, ttl: Any) -> None:
        vars(self)[key] = value

    def incr(self, key: str) -> int:
        vars(self)[key] = vars(self).get(key, 0) + 1
        return int(vars(self)[key])


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    for cls in (ClientOnly, WithHooks, CallsSuper, CallsHooks, WithoutClient):
        register(cls.__name__, cls)
    register("client", ClientOnly)
    register("hooks", WithHooks)


def test_client_only_driver() -> None:
    kvs = KVS("client", {"host": "h"}, "p::", ttl=60)
    client = kvs._client
    assert isinstance(kvs, ClientOnly)
    assert client.kwargs == {"host": "h"}
    kvs.set("key", {"a": 1})
    kvs.set("key", {"a": 2}, 7)
    assert kvs.get("key") == {"a": 2}
    assert client.calls == [
        ("set", b"p::key", '{"a": 1}', 60),
        ("set", b"p::key", '{"a": 2}', 7),
        ("get", b"p::key"),
    ]
    assert kvs.delete("key") == {"a": 2}
    assert client.data == {}


def test_a_driver_gets_everything_else_by_default() -> None:
    kvs = KVS("client", {}, "p::")
    assert kvs.add("key", 1)
    assert not kvs.add("key", 2)
    assert kvs.get_many(["key", "missing"]) == {"key": 1}
    kvs.set_many({"a": 1, "b": 2})
    kvs.delete_many(["a"])
    assert kvs.incr("counter", 5) == 5
    assert kvs.decr("counter") == 4
    assert kvs.update("key", lambda old: old + 1) == 2
    assert kvs.expire("key", 50)
    assert not kvs.expire("missing", 50)
    assert kvs.ping()
    for refused in (kvs.get_keys, kvs.flush, lambda: kvs.ttl_of("key")):
        with pytest.raises(KVSNotSupported, match="client"):
            refused()
    with pytest.raises(NotImplementedError):
        kvs.get_keys()


def test_old_hooks_get_old_arguments_and_give_new_results() -> None:
    kvs = KVS("hooks", {}, "p::", ttl=60)
    assert isinstance(kvs, WithHooks)
    kvs.set("key", "value")
    assert kvs.delete("key") == "value"
    assert kvs.delete("key") is None
    assert kvs.incr("counter") == 1
    assert kvs.incr("counter", 10, 5) == 11
    assert kvs.decr("counter") == 10
    assert kvs.get("counter") == 10
    assert kvs.get_keys("*") == ["counter"]
    assert kvs.seen[:3] == [
        ("raw_set", "key", '"value"', 60),
        ("delete", "key"),
        ("incr", "counter"),
    ]
    kvs.flush()
    assert kvs._client == {}


def test_an_old_delete_may_call_super() -> None:
    kvs = KVS("CallsSuper", {}, "p::")
    kvs.set("key", 1)
    assert kvs.delete("key") == 1
    assert kvs.get("key") is None
    assert kvs._client.data == {}


def test_an_old_incr_may_call_super() -> None:
    kvs = KVS("CallsSuper")
    assert [kvs.incr("counter"), kvs.incr("counter"), kvs.incr("counter", 5)] == [1, 2, 7]


def test_old_hooks_may_call_those_of_an_old_driver() -> None:
    kvs = KVS("CallsHooks")
    assert isinstance(kvs, CallsHooks)
    assert kvs.incr("counter") == 1
    assert kvs.delete("counter") == 1
    assert kvs.delete("counter") is None
    assert kvs.seen == [
        ("before incr", "counter"),
        ("incr", "counter"),
        ("before delete", "counter"),
        ("delete", "counter"),
    ]


def test_old_get_keys_may_be_called_without_a_pattern() -> None:
    kvs = KVS("hooks")
    kvs.set("key", 1)
    assert kvs.get_keys() == ["key"]


def test_a_driver_needs_no_client() -> None:
    kvs = KVS("WithoutClient")
    kvs.set("key", {"a": 1})
    assert kvs.get("key") == {"a": 1}
    with pytest.raises(KVSNotSupported, match="WithoutClient defines neither _create_client"):
        kvs.delete("key")


def test_a_client_may_keep_counters_as_numbers() -> None:
    kvs = KVS("WithoutClient")
    assert kvs.incr("counter") == 1
    assert kvs.get("counter") == 1
    assert kvs.incr("counter", 10) == 11


def test_defaults_are_atomic_among_threads() -> None:
    kvs = KVS("client")
    threads = [
        threading.Thread(
            target=lambda: [kvs.update("n", lambda n: (n or 0) + 1) for _ in range(50)]
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kvs.get("n") == 400


def test_unknown_driver_names_the_closest() -> None:
    with pytest.raises(LookupError) as info:
        KVS("reddis")
    message = str(info.value)
    assert message.startswith("unknown driver 'reddis' (known: CallsHooks, CallsSuper,")
    assert message.endswith("did you mean 'redis'?)")
    with pytest.raises(LookupError, match="did you mean 'redis'"):
        KVS("REDIS")


def test_mock_is_for_tests_only() -> None:
    with pytest.raises(LookupError, match=r"pyramid_kvs\.testing"):
        KVS("mock")


def test_alias() -> None:
    assert driver_class("memcached") is driver_class("memcache")
    assert "memcached" not in driver_names()


def test_a_driver_is_a_kvs() -> None:
    register("wrong", dict)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not a subclass"):
        KVS("wrong")


def test_a_missing_library_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError(name='psycopg')")
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from pyramid_kvs.kvs import KVS
        try:
            KVS("postgresql")
        except ImportError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "postgresql driver needs 'psycopg'" in printed
    assert "pip install pyramid_kvs[postgresql]" in printed


def test_a_driver_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_plugin.py").write_text(
        "from pyramid_kvs.drivers.memory import MemoryKVS\nclass Plugged(MemoryKVS): pass\n"
    )
    info = tmp_path / "a_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a_plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pyramid_kvs.drivers]\nplugged = a_plugin:Plugged\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kvs = KVS("plugged")
    assert type(kvs).__name__ == "Plugged"
    assert "plugged" in driver_names()


def app_with_driver(name: str, *drivers: tuple[str, Any]) -> TestApp:
    config = Configurator(settings={"kvs.cache": {"kvs": name}})
    config.include("pyramid_kvs")
    for driver in drivers:
        config.add_kvs_driver(*driver)
    config.add_route("home", "/")
    config.add_view(
        lambda request: repr(request.cache.client), route_name="home", renderer="string"
    )
    return TestApp(config.make_wsgi_app())


def test_the_directive_counts_after_the_include() -> None:
    app = app_with_driver("mine", ("mine", ClientOnly))
    assert "ClientOnly 'mine' prefix=b'cache::'" in app.get("/").text
    app = app_with_driver("dotted", ("dotted", "pyramid_kvs.drivers.memory:MemoryKVS"))
    assert "MemoryKVS 'dotted'" in app.get("/").text


class Refuses(KVS):
    def _create_client(self, **kwargs: Any) -> None:
        raise RuntimeError("no such host: redis://me:hunter2@host")


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        (dict, "not a subclass of pyramid_kvs.kvs.KVS"),
        ("Nowhere", "kvs.cache: kvs: "),
        ("no_such_package.kvs:Driver", "pip install no_such_package"),
        ("json:Driver", "module 'json' has no attribute 'Driver'"),
        (Refuses, "the mine client refuses {}: no such host"),
    ],
)
def test_a_driver_that_cannot_be_made_names_the_setting(driver: Any, message: str) -> None:
    config = Configurator(settings={"kvs.cache": {"kvs": "mine"}})
    config.include("pyramid_kvs")
    config.add_kvs_driver("mine", driver)
    with pytest.raises(ConfigurationError) as info:
        config.commit()
    assert "ConfigurationError'>: kvs.cache: " in str(info.value)
    assert message in str(info.value)
    assert "hunter2" not in str(info.value)


def test_the_directive_belongs_to_its_application() -> None:
    app_with_driver("mine", ("mine", ClientOnly))
    with pytest.raises(ConfigurationError, match="unknown driver 'mine'"):
        app_with_driver("mine")


def test_two_drivers_of_one_name_conflict() -> None:
    with pytest.raises(ConfigurationConflictError):
        app_with_driver("mine", ("mine", ClientOnly), ("mine", WithHooks))


def test_two_applications_share_no_store() -> None:
    def build() -> TestApp:
        config = Configurator(settings={"kvs.cache": '{"kvs": "memory"}'})
        config.include("pyramid_kvs")
        config.add_route("home", "/")
        config.add_view(lambda request: request.cache.incr("n"), route_name="home", renderer="json")
        return TestApp(config.make_wsgi_app())

    one, other = build(), build()
    assert [one.get("/").json, one.get("/").json, other.get("/").json] == [1, 2, 1]
