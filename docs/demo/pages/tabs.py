"""Ten requests at once that change one session, with ``merge`` and with ``overwrite``."""

import time

from pyramid.view import view_config

from pyramid_kvs.session import SessionFactory

PATH = "/tabs"
TITLE = "Ten tabs"
LEAD = "Ten tabs add to one session at the same time. How many of their changes are kept?"


def includeme(config):
    config.add_route("tabs", PATH)
    config.add_route("tabs_begin", "/tabs/{on_conflict}/begin", request_method="POST")
    config.add_route("tabs_add", "/tabs/{on_conflict}/add/{number}", request_method="POST")
    config.add_route("tabs_kept", "/tabs/{on_conflict}/kept")
    add_second_session(config)


def add_second_session(config):
    """As ``kvs.session``, but the last request overwrites the others."""
    options = {
        **config.registry.settings["kvs.session"],
        "on_conflict": "overwrite",
        "key_name": "demo_overwrite",
        "key_prefix": "overwrite::",
    }
    overwriting = SessionFactory(options)
    name = "overwriting_session"
    config.add_request_method(overwriting, name, reify=True)


@view_config(route_name="tabs", renderer="tabs.html")
def page(request):
    return {}


def session_of(request):
    if request.matchdict["on_conflict"] == "merge":  # the default
        return request.session
    return request.overwriting_session


@view_config(route_name="tabs_add", renderer="json")
def add(request):
    session = session_of(request)
    kept = session["tabs"]
    time.sleep(0.5)  # in this time other tabs read and save the session
    kept.append(int(request.matchdict["number"]))
    return {}


@view_config(route_name="tabs_begin", renderer="json")
def begin(request):
    session_of(request)["tabs"] = []
    return {}


@view_config(route_name="tabs_kept", renderer="json")
def count(request):
    return {"kept": session_of(request).get("tabs", [])}


SETTINGS = ["kvs.session"]
CODE = [add, count, session_of, add_second_session]
