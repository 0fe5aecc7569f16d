"""Connect to the address of a server, within a deadline."""

from __future__ import annotations

import socket
from time import monotonic

from ..resolver import PATIENCE, is_address, resolver


class Address:
    """Where a server listens: a path, an IP address or a host name.

    :param address: as python-memcached parsed it: a path, or a host and a port.
    """

    def __init__(self, family: int, address: str | tuple[str, int]) -> None:
        self._family = family
        self._address = address
        self._needs_lookup = not isinstance(address, str) and not is_address(address[0])

    def __str__(self) -> str:
        if isinstance(self._address, str):
            return self._address
        host, port = self._address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def connect(self, timeout: float) -> socket.socket:
        """Return a connected socket, for the first address of the name that accepts.

        :param timeout: for all addresses together, in seconds.
        :raises OSError: the name is unknown, or no address accepts the connection.
        """
        deadline = monotonic() + timeout
        addresses = self._addresses(min(PATIENCE, timeout))
        for number, address in enumerate(addresses, 1):
            left = (deadline - monotonic()) / (len(addresses) - number + 1)
            try:
                return self._connect(address, left)
            except OSError:
                if number == len(addresses):
                    raise
        raise OSError(f"the host name {self._address[0]!r} has no address of this family")

    def _addresses(self, patience: float) -> list[str | tuple[str, int]]:
        if isinstance(self._address, str) or not self._needs_lookup:
            return [self._address]
        host, port = self._address
        wanted = self._family == socket.AF_INET6
        found = resolver.addresses(host, str(port), patience)
        return [(address, port) for address in found if (":" in address) == wanted]

    def _connect(self, address: str | tuple[str, int], timeout: float) -> socket.socket:
        if timeout <= 0:
            raise TimeoutError("timed out")
        connecting = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            if self._family != socket.AF_UNIX:
                connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connecting.settimeout(timeout)
            connecting.connect(address)
        except BaseException:
            connecting.close()
            raise
        return connecting
