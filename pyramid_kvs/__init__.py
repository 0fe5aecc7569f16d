"""Cache, sessions, rate limit and Perl sessions for Pyramid, on key-value stores.

``pyramid.includes = pyramid_kvs`` includes the library. Each feature is switched on by its setting:
``kvs.cache``, ``kvs.session``, ``kvs.ratelimit``, ``kvs.perlsess``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pyramid_kvs.storable works without Pyramid
    from pyramid.config import Configurator

__version__ = "2.0.0"

#: The package of each setting's feature.
FEATURES = {
    "kvs.cache": ".cache",
    "kvs.session": ".session",
    "kvs.ratelimit": ".ratelimit",
    "kvs.perlsess": ".perlsess",
}

#: The package of each setting that requests have no attribute for.
TOOLS = {"kvs.health": ".health", "kvs.observe": ".observe"}

__all__ = ["includeme", "subscribe_cache", "subscribe_perlsess", "subscribe_ratelimit"]


def includeme(config: Configurator) -> None:
    """Add what the settings of the application ask for.

    ================= =========================================================================
    always            ``config.add_kvs_driver``, ``config.add_kvs_codec``,
                      ``config.add_kvs_listener``, the option ``ratelimit`` of views, a 503 while
                      a store is unavailable, and an ERROR line at the start for a store that
                      cannot serve
    ``kvs.cache``     ``request.cache``
    ``kvs.session``   ``request.session``
    ``kvs.ratelimit`` ``request.ratelimit``, and a tween that counts and refuses requests
    ``kvs.perlsess``  ``request.perlsess``
    ``kvs.observe``   spans of OpenTelemetry, metrics for Prometheus
    ``kvs.health``    a view that says whether the stores can serve
    the debug toolbar a panel with the calls of a request, if ``pyramid_debugtoolbar`` is included
    a setting missing an ``AttributeError`` that names it, where its attribute is used
    ================= =========================================================================
    """
    from .application import add_kvs_codec, add_kvs_driver, add_kvs_listener
    from .settings import check_included, check_names, is_set
    from .start import finish_start
    from .web.attribute import explain_missing

    settings = config.registry.settings
    packages = FEATURES | TOOLS
    check_names(settings, packages)
    config.add_directive("add_kvs_driver", add_kvs_driver)
    config.add_directive("add_kvs_codec", add_kvs_codec)
    config.add_directive("add_kvs_listener", add_kvs_listener)
    finish_start(config)
    config.include(".web.failures")
    config.include(".ratelimit.views")
    config.include(".debugtoolbar")
    present = [setting for setting in packages if is_set(settings, setting)]
    for setting in present:
        config.include(packages[setting])
    explain_missing(config, FEATURES.keys() - present)
    config.action(
        "kvs settings", lambda: check_included(config.registry.settings, packages, present)
    )


def subscribe_cache(event: Any) -> None:
    """Put ``cache`` on the request of an event.

    Requests that do not pass through the router need this, for example in tests.
    """
    from .cache import subscribe

    subscribe(event)


def subscribe_perlsess(event: Any) -> None:
    """Put ``perlsess`` on the request of an event, as :func:`subscribe_cache` does."""
    from .perlsess import subscribe_perlsess as subscribe

    subscribe(event)


def subscribe_ratelimit(event: Any) -> None:
    """Count the request of an event, and add the headers by a response callback.

    :raises pyramid_kvs.ratelimit.RateLimitError: it is over the limit.
    """
    from .ratelimit import subscribe_ratelimit as subscribe

    subscribe(event)
