"""``request.perlsess``: the session that a Perl application stored, by the id in its cookie.

- ``feature``: what the setting ``kvs.perlsess`` adds to an application
- ``factory``: makes the session of each request
- ``session``: the session, read-only or writable
- ``cookie``, ``store``: find the id, and load and save the session
- ``records``: the values in the stored data, and how they are changed
- ``formats``, ``layers``: what Perl's modules put around an image
- ``comparison``: finds out what a request changed
"""

from __future__ import annotations

from .factory import PerlSessionFactory
from .feature import includeme, perlsess_of, subscribe_perlsess
from .session import PerlSession, WritablePerlSession

__all__ = [
    "PerlSession",
    "PerlSessionFactory",
    "WritablePerlSession",
    "includeme",
    "perlsess_of",
    "subscribe_perlsess",
]
