"""The session: a cart that several windows fill, counters, flash messages and a new id."""

import time

from pyramid.view import view_config

PATH = "/session"
TITLE = "Session"
LEAD = "A server-side session. Open this page in two tabs: what one adds, the other one shows."


def includeme(config):
    config.add_route("session", PATH)
    config.add_route("session_state", "/session/state")
    config.add_route("session_add", "/session/add", request_method="POST")
    config.add_route("session_id", "/session/id", request_method="POST")
    config.add_route("session_end", "/session/end", request_method="POST")


@view_config(route_name="session", renderer="session.html")
def page(request):
    return {}


@view_config(route_name="session_add", renderer="json")
def add(request):
    session = request.session
    item = str(request.json_body["item"])[:30]
    session.setdefault("cart", []).append(item)  # noticed at any depth
    session.incr("changes")
    session.flash(f"{item} is in the cart.")
    return {}


@view_config(route_name="session_state", renderer="json")
def state(request):
    session = request.session
    return {
        "cart": session.get("cart", []),
        "changes": session.get("changes", 0),
        "age": max(int(time.time() - session.created), 0),
        "messages": session.pop_flash(),
        # The store has a hash of the id. The hash is not secret.
        "id": "" if session.new else session.get_session_key()[:8],
    }


@view_config(route_name="session_id", renderer="json")
def change_id(request):
    request.session.regenerate_id()
    return {}


@view_config(route_name="session_end", renderer="json")
def end(request):
    request.session.invalidate()
    return {}


SETTINGS = ["kvs.session"]
CODE = [add, state, change_id, end]
