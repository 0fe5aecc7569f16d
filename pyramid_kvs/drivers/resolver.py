"""Look up host names, so that a resolver that hangs delays one caller at a time."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from os import getpid

from ..messages import quoted

#: How long a caller waits while another one looks up the same name, in seconds. A lookup takes
#: some milliseconds, unless the resolver hangs.
PATIENCE = 0.25


class Resolver:
    """The addresses of hosts. Python cannot interrupt a lookup, which may take 30 seconds.

    So one caller at a time looks up a name. The others use the addresses that were found last.
    """

    def __init__(self) -> None:
        # For each process, because another thread may have held the lock at the fork.
        self._locks: dict[tuple[int, str], threading.Lock] = {}
        self._found: dict[tuple[str, str], list[str]] = {}

    def addresses(self, host: str, port: str, timeout: float = PATIENCE) -> list[str]:
        """Return all IP addresses of a host name, in the order of the system.

        :param timeout: how long to wait for another caller's lookup, in seconds.
        :raises TimeoutError: the resolver did not answer the other caller; an ``OSError``.
        :raises OSError: the name is unknown.
        """
        lock = self._locks.setdefault((getpid(), host), threading.Lock())
        known = self._found.get((host, port))
        if not lock.acquire(timeout=0 if known else max(0.0, timeout)):
            if known:
                return known
            raise TimeoutError(f"the lookup of the host name {quoted(host)} takes too long")
        try:
            found = self._found[host, port] = _look_up(host, port)
        finally:
            lock.release()
        return found


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, with or without a scope, and needs no lookup."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _look_up(host: str, port: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty or a long label
        raise OSError(f"{quoted(host)} is not a host name") from error
    except OSError as error:
        said = f"the host name {quoted(host)} was not found: {error.strerror}"
        raise OSError(error.errno, said) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


#: One for all drivers, because they share the system's resolver.
resolver = Resolver()
