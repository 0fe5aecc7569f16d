"""Where requests and responses carry the session id: in a cookie or in a header."""

from __future__ import annotations

from .base import Carrier
from .cookies import CookieCarrier
from .headers import HeaderCarrier

__all__ = ["Carrier", "CookieCarrier", "HeaderCarrier"]
