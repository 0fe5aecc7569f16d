"""Drivers as 1.0 let applications write them."""

from __future__ import annotations

from typing import Any

from pyramid_kvs.kvs import KVS


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
    """A driver that defines only its client."""

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


class WithoutClient(KVS):
    """Keeps its data itself, and its counters as numbers."""

    def raw_get(self, key: str, default: Any = None) -> Any:
        return vars(self).get(key, default)

    def raw_set(self, key: str, value: Any, ttl: Any) -> None:
        vars(self)[key] = value

    def incr(self, key: str) -> int:
        vars(self)[key] = vars(self).get(key, 0) + 1
        return int(vars(self)[key])
