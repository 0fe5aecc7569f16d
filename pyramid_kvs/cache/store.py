"""The store of a cache: what counts as missing, and what happens while it is unavailable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..exceptions import CodecError, KVSUnavailable
from ..kvs import KVS, Data
from ..logs import ThrottledLog

T = TypeVar("T")
log = logging.getLogger("pyramid_kvs.cache")


class Store:
    """A driver behind the rules of ``on_error``.

    :param on_error: ``"raise"`` or ``"miss"``.
    """

    def __init__(self, client: KVS, on_error: str) -> None:
        self.client = client
        self._raises = on_error == "raise"
        self._unavailable = ThrottledLog(log)

    def attempt(self, default: T, operation: Callable[..., T], *args: Any) -> T:
        """Return what an operation returns, or ``default`` while the store is unavailable."""
        try:
            return operation(*args)
        except KVSUnavailable as error:
            self.drop(error)
            return default

    def read(self, key: str, default: Any) -> Any:
        """Return the value at a key, or ``default``."""
        try:
            data = self.client.raw_get(key)
        except KVSUnavailable as error:
            self.drop(error)
            return default
        return default if data is None else self.decode(key, data, default)

    def decode(self, key: str, data: Any, default: Any) -> Any:
        """Return the value of data, or ``default`` and a log line if they do not decode."""
        try:
            return self.client.decode(data)
        except CodecError as error:
            self.log_undecodable(key, error)
            return default

    def log_undecodable(self, key: str, error: CodecError) -> None:
        log.warning("cache key %r: %s; it counts as missing", key, error)

    def encode(self, key: str, value: Any) -> Data:
        """Return the data of a value.

        :raises TypeError: the codec cannot write it.
        """
        try:
            return self.client.encode(value)
        except Exception as error:  # an application's codec may raise anything
            raise TypeError(f"cache key {key!r}: the codec cannot write it: {error}") from error

    def check_codec(self, values: Mapping[str, Any]) -> None:
        """Encode the values that could not be stored, to find the one that does not encode.

        :raises TypeError: the codec cannot write it.
        """
        for key, value in values.items():
            self.encode(key, value)

    def drop(self, error: KVSUnavailable) -> None:
        """Log that the store is unavailable, at most once a minute, or raise the error."""
        if self._raises:
            raise error
        self._unavailable.warning(
            "the store of the cache is unavailable, requests go on without it: %s", error
        )
