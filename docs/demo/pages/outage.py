"""An outage: the buttons stop, pause and start the store while features are in use."""

import time

from pyramid.view import view_config

PATH = "/outage"
TITLE = "Outage"
LEAD = "Stop the store, or let it hang, and see what visitors get until it is back."


def includeme(config):
    config.add_route("outage", PATH)
    config.add_route("outage_store", "/outage/store")
    config.add_route(
        "outage_change", "/outage/store/{action:start|pause|stop}", request_method="POST"
    )
    config.add_route("outage_cache", "/outage/cache")
    config.add_route("outage_session", "/outage/session")
    config.add_route("outage_limit", "/outage/limit", ratelimit={"limit": 600, "window": 60})


@view_config(route_name="outage", renderer="outage.html")
def page(request):
    return {}


@view_config(route_name="outage_cache", renderer="json")
def use_cache(request):
    is_mine = False

    def compute():
        nonlocal is_mine
        is_mine = True
        return time.time()

    request.cache.get_or_create("time", compute, ttl=300)
    return {"computed": is_mine}


@view_config(route_name="outage_session", renderer="json")
def use_session(request):
    return {"visits": request.session.incr("visits")}


@view_config(route_name="outage_limit", renderer="json")
def be_limited(request):
    return {"counted": request.ratelimit.results[0].is_counted}


@view_config(route_name="outage_store", renderer="json")
def state(request):
    store = request.registry["demo.store"]
    return {"state": store.state, "is_server": store.is_server, "keeps_data": store.keeps_data}


@view_config(route_name="outage_change", renderer="json")
def change(request):
    store = request.registry["demo.store"]
    if store.is_server:
        getattr(store, request.matchdict["action"])()
    return state(request)


SETTINGS = ["kvs.cache", "kvs.session", "kvs.ratelimit", "kvs.health"]
CODE = [use_cache, use_session, be_limited]
