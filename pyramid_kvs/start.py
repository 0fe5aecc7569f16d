"""What happens once, when an application has been created.

Its settings and stores are checked, and its requests are given what no setting of Pyramid gives.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pyramid.config import Configurator
from pyramid.interfaces import IApplicationCreated, IExecutionPolicy
from pyramid.registry import Registry
from pyramid.response import Response
from pyramid.router import Router

from .application import Application, Store
from .kvs import KVS
from .messages import reason, without_credentials
from .processes import ProcessWatch
from .web.failures import Policy, answered

log = logging.getLogger("pyramid_kvs.stores")

_is_checked: ContextVar[bool] = ContextVar("pyramid_kvs_is_checked", default=True)


def finish_start(config: Configurator) -> None:
    """Have the start finished when the application has been created.

    The handler removes itself. Pyramid looks for subscribers four times in each request if there
    is any, which takes 3.5 microseconds, and does not look if there is none.
    """
    registry = config.registry

    def finish(event: Any) -> None:
        application = Application.of(registry)
        for check in application.start_checks:
            check()
        registry.unregisterHandler(finish, (IApplicationCreated,))
        registry.has_listeners = _has_listeners(registry)
        policy = _watched(answered(event.app.execution_policy, registry), application.stores)
        event.app.execution_policy = policy
        registry.registerUtility(policy, IExecutionPolicy)  # for later routers of this Configurator
        if _is_checked.get():
            log_failures(application.stores)

    config.action("kvs start", lambda: registry.registerHandler(finish, (IApplicationCreated,)))


def _watched(policy: Policy, stores: Iterable[Store]) -> Policy:
    """Have requests show whether several processes use stores that each of them has alone."""
    watch = ProcessWatch(store.setting for store in stores if not store.driver.is_shared)

    def look(environ: dict[str, Any], router: Router) -> Response:
        if watch.is_on:
            watch.look(environ)
        return policy(environ, router)

    return look if watch.is_on else policy


@contextmanager
def unchecked() -> Iterator[None]:
    """Create applications without the check, for commands that call the stores themselves.

    A check that timed out would open the circuit breaker. The command would then report the open
    breaker instead of the reason.
    """
    token = _is_checked.set(False)
    try:
        yield
    finally:
        _is_checked.reset(token)


def _has_listeners(registry: Registry) -> bool:
    listeners = (registry.registeredHandlers, registry.registeredSubscriptionAdapters)
    return any(any(True for _ in registered()) for registered in listeners)


def log_failures(stores: Iterable[Store]) -> None:
    """Log the stores that cannot serve; the application starts although they cannot.

    The connections are closed, because a server such as uWSGI may fork afterwards.
    """
    for store in stores:
        failure = failure_of(store.driver)
        if failure is not None:
            log.error("%s: the store at %s cannot serve: %s", store.place, store.server, failure)
        store.driver.close()


def failure_of(driver: KVS) -> str | None:
    """Return why a store cannot serve its application, or ``None`` if it can."""
    try:
        driver.check()
    except Exception as error:  # noqa: BLE001 (a driver of the application may raise anything)
        return reason(error) or type(error).__name__
    return None


def nodes_of(driver: KVS) -> dict[str, str | None]:
    """Return why each server of a store cannot serve, if its driver tells its servers apart."""
    try:
        nodes = driver.check_nodes()
    except Exception:  # noqa: BLE001 (a driver of the application may raise anything)
        return {}
    return {node: failure and without_credentials(failure) for node, failure in nodes.items()}
