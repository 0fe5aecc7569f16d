"""The application: its settings, its pages, and what all of its responses have."""

from pathlib import Path

from pyramid.config import Configurator
from pyramid.csrf import CookieCSRFStoragePolicy
from pyramid.events import NewResponse

from .layout import page_renderer
from .pages import PAGES

#: Scripts, styles and data come from the demo only, and no other site can put it into a frame.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        *("script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    ]
)


def settings(store):
    """Return the settings of the demo for a store: its ``kvs`` and ``kvs_kwargs``."""
    return {
        "kvs.cache": {**store, "ttl": 60},
        "kvs.session": {
            **store,
            "ttl": 1200,
            "key_name": "demo_session",
            "cookie_refresh": 60,
            "hash_keys": True,
        },
        # No limits for all views. Views and routes have their own.
        "kvs.ratelimit": [],
        "kvs.perlsess": {
            **store,
            "cookie_name": "demo_perl",
            "id_pattern": "[0-9a-f]{32}",
            "writable": True,
        },
        "kvs.health": {"path": "/health"},
    }


def main(store):
    """Return the WSGI application.

    :param store: one of :mod:`demo.stores`, which has been started.
    """
    config = Configurator(settings=settings(store.settings))
    config.registry["demo.store"] = store
    config.include("pyramid_kvs")
    # The buttons have to work while the store is stopped, so this token is not in the session.
    config.set_csrf_storage_policy(CookieCSRFStoragePolicy(cookie_name="demo_csrf"))
    config.set_default_csrf_options(require_csrf=True)
    config.add_static_view("static", str(Path(__file__).parent / "static"), cache_max_age=0)
    config.add_renderer(".html", page_renderer)
    config.add_subscriber(add_headers, NewResponse)
    for page in PAGES:
        config.include(page)
        config.scan(page)
    return config.make_wsgi_app()


def add_headers(event):
    headers = event.response.headers
    headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
