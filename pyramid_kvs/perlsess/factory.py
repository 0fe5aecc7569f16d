"""Makes the Perl session of each request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.request import Request

from ..kvs import KVS
from .cookie import IdCookie
from .records import choose_records
from .session import PerlSession, WritablePerlSession
from .settings import SETTING
from .store import PerlSessionStore


class PerlSessionFactory:
    """Makes the Perl session of a request, as the options of ``kvs.perlsess`` say.

    :param options: the checked options of the setting.
    :param renews: whether each save sets the ttl of the options. Otherwise a session keeps its
        remaining lifetime.
    :raises ConfigurationError: the options cannot be combined.
    """

    def __init__(self, options: Mapping[str, Any], driver: KVS, renews: bool = False) -> None:
        if options["writable"] and options["fallback_codec"] is not None:
            raise ConfigurationError(
                f"{SETTING}: writable and fallback_codec cannot be combined, because a session is "
                "saved in the form in which it was read"
            )
        self.driver = driver
        #: What the keys of all sessions begin with.
        self.key_prefix = driver.key_prefix + options["key_format"].partition("{")[0].encode()
        self._cookie = IdCookie(options["cookie_name"], options["id_pattern"])
        records = choose_records(driver.codec, options)
        self._store = PerlSessionStore(driver, records, options["key_format"], renews)
        self._session_class = WritablePerlSession if options["writable"] else PerlSession

    def __call__(self, request: Request) -> PerlSession:
        return self._session_class(self._cookie, self._store, request)
