"""Rate limits: three strategies beside each other, and a page for those who are refused."""

from pyramid.view import exception_view_config, view_config

from pyramid_kvs.ratelimit import RateLimitError

PATH = "/limits"
TITLE = "Limits"
LEAD = "Ten requests in ten seconds, counted by three strategies. Watch how each one refills."
STRATEGIES = ("fixed-window", "sliding-window", "gcra")


def includeme(config):
    config.add_route("limits", PATH)
    add_strategies(config)
    config.add_route("exact", "/limits/exact", ratelimit={"limit": 10, "window": 10})
    config.add_route("limited", "/limits/page", ratelimit={"limit": 3, "window": 10})


def add_strategies(config):
    for name in STRATEGIES:
        limit = {"limit": 10, "window": 10, "strategy": name, "count": [201]}
        config.add_route(name, f"/limits/{name}", ratelimit=limit)
        for view, method in ((send, "POST"), (look, "GET")):
            config.add_view(view, route_name=name, request_method=method, renderer="json")


@view_config(route_name="limits", renderer="limits.html")
def page(request):
    return {}


def send(request):
    request.response.status_int = 201  # counted
    return {}


def look(request):
    return {}  # 200 is not counted; the header fields say what is left


@view_config(route_name="exact", renderer="json")
def exact(request):
    return {}


@view_config(route_name="limited", renderer="limited.html")
def limited(request):
    return {
        "title": "A limited page",
        "lead": "This page may be opened three times in ten seconds.",
        "left": request.ratelimit.remaining,
    }


@exception_view_config(RateLimitError, accept="text/html", renderer="refused.html")
def slow_down(error, request):
    """What a browser shows. Scripts get the problem details."""
    request.response.status_int = error.status_int
    return {
        "title": "Too many requests",
        "lead": "You have opened this page too often.",
        "seconds": error.retry_after,
        "path": request.path,
    }


SETTINGS = ["kvs.ratelimit"]
CODE = [add_strategies, send, look, slow_down]
