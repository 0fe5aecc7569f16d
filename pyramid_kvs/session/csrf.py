"""The tokens against cross-site request forgery that a session has."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from pyramid.csrf import SessionCSRFStoragePolicy
from pyramid.interfaces import ICSRFStoragePolicy
from pyramid.request import Request

from .keys import SessionId, random_id
from .state import StoreState

if TYPE_CHECKING:
    from .mapping import SessionMapping


def first_token(state: StoreState, client_chooses: bool) -> str:
    """Return the first token of a session, which the store or the client already knows.

    It is derived from the session id. Two pages that are rendered at the same time, before either
    of them has stored its token, then have the same one. A new id, which this request has asked
    for, does not exist yet; an old id may be known to an attacker.
    """
    known = client_chooses and not state.is_removed
    if state.found is not None and state.found.session_id == state.session_id:
        known = True
    return _derived(state.session_id) if known and state.session_id else random_id()


def _derived(session_id: SessionId) -> str:
    key = (session_id.scope + session_id.value).encode("utf-8", "surrogatepass")
    return hmac.new(key, b"csrf token", hashlib.sha256).hexdigest()[:40]


def renew_token_of_policy(request: Request, session: SessionMapping) -> None:
    """Renew the token that Pyramid's ``SessionCSRFStoragePolicy`` keeps in a session."""
    try:
        registry = getattr(request, "registry", None)
    except ReferenceError:  # the request has ended
        return
    policy = None if registry is None else registry.queryUtility(ICSRFStoragePolicy)
    if isinstance(policy, SessionCSRFStoragePolicy) and policy.key in session:
        policy.new_csrf_token(request)
