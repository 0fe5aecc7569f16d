"""Sessions that lose nothing: ``kvs.session``, or :class:`SessionFactory` without the setting."""

from __future__ import annotations

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import ISessionFactory
from pyramid.registry import Registry

from ..application import ORDER_FEATURES, Application, add_feature
from .factory import SessionFactory
from .kinds import AuthTokenSession, CookieSession
from .settings import SETTING
from .users import UserSession
from .users.functions import end_session, end_sessions, end_user_sessions, list_sessions

__all__ = [
    "AuthTokenSession",
    "CookieSession",
    "SessionFactory",
    "UserSession",
    "end_session",
    "end_sessions",
    "end_user_sessions",
    "includeme",
    "list_sessions",
]


def includeme(config: Configurator) -> None:
    """Register the session factory."""
    introspectable = config.introspectable(
        "session factory", None, "kvs.session of pyramid_kvs", "session factory"
    )
    introspectable["setting"] = SETTING
    registry, application = config.registry, Application.of(config.registry)

    def build() -> dict[str, object]:
        factory = SessionFactory(registry.settings[SETTING], application=application)
        application.features[SETTING] = factory
        return {"driver": factory.driver.kvs, "session_class": factory.session_class.__name__}

    def register() -> None:
        _refuse_another_factory(registry)
        registry.registerUtility(application.features[SETTING], ISessionFactory)
        application.start_checks.append(lambda: _refuse_another_factory(registry))

    add_feature(config, SETTING, build)
    # Before Pyramid's set_session_factory, so that the check at the start sees what that sets.
    config.action(None, register, introspectables=(introspectable,), order=ORDER_FEATURES)


def _refuse_another_factory(registry: Registry) -> None:
    factory = registry.queryUtility(ISessionFactory)
    if not isinstance(factory, (SessionFactory, type(None))):
        name = getattr(factory, "__qualname__", type(factory).__qualname__)
        module = getattr(factory, "__module__", type(factory).__module__)
        raise ConfigurationError(
            f"{SETTING}: another session factory is set too, {module}.{name}: remove the setting "
            f"{SETTING}, or remove what sets the other factory (the argument session_factory of "
            "the Configurator, config.set_session_factory, or an add-on that calls it)"
        )
