"""Warn about a proxy in front of the server that the server does not trust."""

from __future__ import annotations

import functools
import ipaddress
import logging
import math
from collections.abc import Mapping
from typing import Any

from ..logs import ThrottledLog
from .identity import parse_address

_NETWORKS = [
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("100.64.0.0/10", "::1/128", "fc00::/7", "fe80::/10"),
    )
]

#: What to configure, by the first word of SERVER_SOFTWARE.
_SETTINGS = {
    "waitress": "set trusted_proxy and trusted_proxy_headers of waitress",
    "gunicorn": (
        "gunicorn does not set the address, not even for forwarded_allow_ips: add the filter "
        "egg:PasteDeploy#prefix to the ini file"
    ),
    "uwsgi": "let the proxy use the protocol of uWSGI (nginx: uwsgi_pass and uwsgi_params)",
    "apache": "set WSGITrustedProxies and WSGITrustedProxyHeaders of mod_wsgi",
}
_OTHERS = (
    "configure the server to take it from its proxy (waitress: trusted_proxy and "
    "trusted_proxy_headers; gunicorn: the filter egg:PasteDeploy#prefix)"
)


class ProxyWatch:
    """Warns once if requests come from a proxy, and have its address instead of the client's."""

    def __init__(self) -> None:
        self._log = ThrottledLog(logging.getLogger("pyramid_kvs.ratelimit"), math.inf)
        self._is_on = True

    def look(self, environ: Mapping[str, Any]) -> None:
        """Look at a request with ``X-Forwarded-For`` or ``Forwarded``, which is never believed."""
        if self._is_on and _is_of_proxy(environ):
            self._is_on = False
            self._log.warning(
                "requests come from a proxy that the server does not trust: REMOTE_ADDR is its "
                "address, so that all its clients without another identity share one rate limit; "
                "%s",
                _advice(environ),
            )


def _is_of_proxy(environ: Mapping[str, Any]) -> bool:
    address = environ.get("REMOTE_ADDR") or ""
    forwarded = [environ.get(f"HTTP_{name}", "") for name in ("X_FORWARDED_FOR", "FORWARDED")]
    # A private client behind a trusted proxy: the server has taken its address from the header.
    return _is_private(address) and not any(address in value for value in forwarded)


@functools.lru_cache(maxsize=256)
def _is_private(address: str) -> bool:
    parsed = parse_address(address)
    return parsed is not None and any(parsed in network for network in _NETWORKS)


def _advice(environ: Mapping[str, Any]) -> str:
    if "uwsgi.version" in environ:
        return _SETTINGS["uwsgi"]
    software = str(environ.get("SERVER_SOFTWARE", "")).lower()
    return next((text for name, text in _SETTINGS.items() if software.startswith(name)), _OTHERS)
