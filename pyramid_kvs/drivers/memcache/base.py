"""What all operations of the driver need: its servers, full keys, and steps with one item."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from time import monotonic
from typing import Any

from ...exceptions import KVSConflict, ValueTooLarge
from ...kvs import KVS, Breakers, Data, pause
from ...serializer import as_bytes
from . import items, options
from .items import TEXT, Item, Token
from .servers import Servers

#: Keys that are sent as they are: without spaces or control characters, and not a mapped key.
MAPPED = b"kvs:sha256:"
PLAIN_KEY = re.compile(rb"(?!kvs:sha256:)[\x21-\x7e\x80-\xff]{1,250}")


class ItemsByKey(KVS):
    """Steps with one item, by full key. The operations are made of them."""

    @classmethod
    def client_arguments(cls) -> frozenset[str]:
        return options.NAMES

    def _create_client(self, **kwargs: Any) -> Any:
        chosen = options.read(kwargs)
        client = chosen.make_client()
        self._servers = Servers(client, chosen)
        self._encoder = chosen.key_encoder
        self._largest = chosen.largest
        return client

    def share_breakers(self, breakers: Breakers) -> None:
        self._servers.share_breakers(breakers)

    def places(self) -> frozenset[str]:
        return frozenset(map(str, self._servers))

    def addresses(self) -> list[str]:
        return [server.address for server in self._servers]

    def connection_pools(self) -> list[Any]:
        return [server.pool for server in self._servers]

    def close(self) -> None:
        self._servers.close()

    def _full_key(self, key: str) -> bytes:
        full_key = self._get_key(key)
        if self._encoder is not None:
            full_key = self._encoder(full_key)
        if PLAIN_KEY.fullmatch(full_key):
            return full_key
        return MAPPED + hashlib.sha256(full_key).hexdigest().encode()

    def _set_command(
        self,
        full_key: bytes,
        data: Data,
        ttl: float | None,
        flags: int | None = None,
        mode: bytes = b"",
    ) -> bytes:
        """Return the command that stores data.

        :param mode: the flags of the meta command, for example those of a compare-and-set.
        :raises ValueTooLarge: the data are larger than ``server_max_value_length``.
        """
        if flags is None:
            flags = TEXT if isinstance(data, str) else 0
        stored, exptime = items.lasting(as_bytes(data), ttl, flags)
        if len(stored) > self._largest:
            raise ValueTooLarge(f"a value of {len(stored)} bytes; {self._largest} are allowed")
        return items.set_command(full_key, stored, exptime, flags, mode)

    # -- steps ----------------------------------------------------------------------------

    def _item(self, full_key: bytes, touch: bytes = b"") -> Item | None:
        """Return the item at a key, even if its deadline is over.

        :param touch: a flag that gives the item a new ttl.
        """
        reply = self._servers.load(full_key, b"mg %b v f c t%b\r\n" % (full_key, touch))
        return items.item(reply) if items.is_value(reply) else None

    def _add(
        self, full_key: bytes, data: Data, ttl: float | None, flags: int | None = None
    ) -> bool:
        """Store data if the key is absent; return whether it was."""
        began = monotonic()
        command = self._set_command(full_key, data, ttl, flags, b" ME")
        if self._servers.ask(full_key, command).words[0] == b"HD":
            return True

        def add_again() -> bool:
            for _ in self._attempts():
                item = self._item(full_key)
                if item is not None:
                    return item.is_over() and self._replace(full_key, data, ttl, flags, item.token)
                if self._servers.ask(full_key, command).words[0] == b"HD":
                    return True
            raise self._conflict()

        return self._servers.since(began, add_again)

    def _replace(
        self, full_key: bytes, data: Data, ttl: float | None, flags: int | None, token: Token
    ) -> bool:
        """Store data if the item has not changed; return whether it was stored."""
        command = self._set_command(full_key, data, ttl, flags, items.if_still(token))
        return self._swap(full_key, token, command)

    def _remove_item(self, full_key: bytes, token: Token) -> bool:
        """Remove an item if it has not changed; return whether it was removed."""
        command = b"md %b%b\r\n" % (full_key, items.if_still(token))
        return self._swap(full_key, token, command)

    def _swap(self, full_key: bytes, token: Token, command: bytes) -> bool:
        return self._servers.swap(full_key, token.run_id, command).words[0] == b"HD"

    def _attempts(self) -> Iterator[int]:
        for attempt in range(self.update_attempts):
            pause(attempt)
            yield attempt

    def _conflict(self) -> KVSConflict:
        return KVSConflict(f"the key changed {self.update_attempts} times during one call")
