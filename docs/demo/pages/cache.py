"""The cache: a slow result that one request computes, while others get the old one."""

import random
import time

from pyramid.view import view_config

PATH = "/cache"
TITLE = "Cache"
LEAD = "A slow result is computed once, however many ask for it. While it is stale, only one waits."


def includeme(config):
    config.add_route("cache", PATH)
    config.add_route("cache_report", "/cache/report")
    config.add_route("cache_state", "/cache/state")
    config.add_route("cache_delete", "/cache/delete", request_method="POST")


@view_config(route_name="cache", renderer="cache.html")
def page(request):
    return {}


@view_config(route_name="cache_report", renderer="json")
def ask(request):
    """Fresh for 10 seconds, then kept for 20 more."""
    is_mine = False

    def make():
        nonlocal is_mine
        is_mine = True
        time.sleep(1)  # the work
        number = random.randint(1000, 9999)
        return {"number": number, "made": time.time()}

    report = request.cache.get_or_create("report", make, ttl=10, stale=20)
    return {"number": report["number"], "computed": is_mine}


@view_config(route_name="cache_state", renderer="json")
def state(request):
    """What the page draws: nothing is computed here."""
    report = request.cache.get("report")
    if report is None:
        return {"left": 0}
    return {
        "number": report["number"],
        "age": max(time.time() - report["made"], 0),
        "left": max(request.cache.ttl("report"), 0),
    }


@view_config(route_name="cache_delete", renderer="json")
def delete(request):
    request.cache.delete("report")
    return {}


SETTINGS = ["kvs.cache"]
CODE = [ask, state, delete]
