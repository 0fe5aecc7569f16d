"""Sessions that lose nothing: ``kvs.session``, or :class:`SessionFactory` without the setting."""

from __future__ import annotations

from pyramid.config import Configurator
from pyramid.interfaces import ISessionFactory

from ..application import Application, add_feature
from .factory import SessionFactory
from .session import AuthTokenSession, CookieSession
from .settings import SETTING
from .users import UserSession
from .users.functions import end_session, end_sessions, list_sessions

__all__ = [
    "AuthTokenSession",
    "CookieSession",
    "SessionFactory",
    "UserSession",
    "end_session",
    "end_sessions",
    "includeme",
    "list_sessions",
]


def includeme(config: Configurator) -> None:
    """Register the session factory."""
    introspectable = config.introspectable(
        "session factory", None, "kvs.session of pyramid_kvs", "session factory"
    )
    introspectable["setting"] = SETTING
    application = Application.of(config.registry)

    def build() -> dict[str, object]:
        factory = SessionFactory(config.registry.settings[SETTING], application=application)
        application.features[SETTING] = factory
        return {"driver": factory.driver.kvs, "session_class": factory.session_class.__name__}

    def register() -> None:
        config.registry.registerUtility(application.features[SETTING], ISessionFactory)

    add_feature(config, SETTING, build)
    # In the order of Pyramid's own set_session_factory, which thus replaces it without conflict.
    config.action(ISessionFactory, register, introspectables=(introspectable,))
