"""Log in, and log out everywhere: the sessions of one user in several browsers."""

import time

from pyramid.view import view_config

from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.session import end_session, end_sessions, list_sessions

PATH = "/login"
TITLE = "Log out everywhere"
LEAD = "Log in here and in another browser or a private window, then end all sessions at once."


def includeme(config):
    config.add_route("login", PATH)
    config.add_route("login_state", "/login/state")
    config.add_route("login_in", "/login/in", request_method="POST")
    config.add_route("login_out", "/login/out", request_method="POST")
    config.add_route("login_out_everywhere", "/login/out-everywhere", request_method="POST")
    config.add_route("login_end", "/login/end", request_method="POST")


@view_config(route_name="login", renderer="login.html")
def page(request):
    return {}


@view_config(route_name="login_in", renderer="json")
def log_in(request):
    user = str(request.json_body["user"])[:30]  # without a password here
    request.session.regenerate_id()
    request.session["user"] = user
    request.session.bind(user)
    return {}


@view_config(route_name="login_out", renderer="json")
def log_out(request):
    request.session.invalidate()
    return {}


@view_config(route_name="login_out_everywhere", renderer="json")
def log_out_everywhere(request):
    ended = end_sessions(request, request.session["user"])
    return {"ended": ended}


@view_config(route_name="login_end", renderer="json")
def log_out_one(request):
    user, handle = request.session["user"], request.json_body["handle"]
    end_session(request, user, handle)
    return {}


@view_config(route_name="login_state", renderer="json")
def state(request):
    user = request.session.get("user")
    return {"user": user, "sessions": sessions_of(request, user) if user else []}


def sessions_of(request, user):
    try:
        found = list_sessions(request, user)
    except KVSNotSupported:  # memcached cannot list its keys
        return None
    return [
        {
            "handle": one.handle,  # identifies a session, but opens none
            "age": max(int(time.time() - one.created), 0),
            "is_current": one.is_current,
        }
        for one in found
    ]


SETTINGS = ["kvs.session"]
CODE = [log_in, log_out, log_out_everywhere, log_out_one, sessions_of]
