"""Show which changes survive when ten requests change one session at the same time.

Run it with ``python docs/two_browsers.py`` to keep the sessions in the memory of the process, or
with ``python docs/two_browsers.py redis://localhost:6379/0`` to keep them in redis.

Ten requests with the same session cookie arrive together. Each request sets a different key,
appends to a list, adds to a counter, and adds a flash message. A barrier makes sure that all
requests have loaded the session before the first one saves it. The same happens, less reliably,
when a page starts ten requests.
"""

import json
import sys
import threading

from pyramid.config import Configurator
from pyramid.response import Response
from webob import Request

REQUESTS = 10


def make_app(on_conflict, url):
    store = {"kvs": "redis", "kvs_kwargs": {"url": url}} if url else {"kvs": "memory"}
    config = Configurator(settings={"kvs.session": {**store, "on_conflict": on_conflict}})
    config.include("pyramid_kvs")
    barrier = threading.Barrier(REQUESTS)

    def add(request):
        number = request.matchdict["number"]
        request.session["login"]  # load the session
        barrier.wait()
        request.session[f"tab {number}"] = "saved"
        request.session.setdefault("cart", []).append(number)
        request.session.incr("visits")
        request.session.flash(f"Tab {number} is done.")
        return Response()

    def log_in(request):
        request.session["login"] = "zoe"
        return Response()

    def show(request):
        session = request.session
        keys = [key for key in session if key.startswith("tab")]
        found = {
            "keys": len(keys),
            "items": len(session["cart"]),
            "visits": session["visits"],
            "messages": len(session.pop_flash()),
        }
        return Response(json.dumps(found))

    for name, path, view in (
        ("log_in", "/log-in", log_in),
        ("add", "/add/{number}", add),
        ("show", "/show", show),
    ):
        config.add_route(name, path)
        config.add_view(view, route_name=name)
    return config.make_wsgi_app()


def run(on_conflict, url=None):
    """Return how many changes of the ten requests are in the session at the end, by kind."""
    app = make_app(on_conflict, url)
    response = Request.blank("/log-in").get_response(app)
    cookie = response.headers["Set-Cookie"].partition(";")[0]

    def get(path):
        return Request.blank(path, headers={"Cookie": cookie}).get_response(app)

    tabs = [threading.Thread(target=get, args=(f"/add/{n}",)) for n in range(REQUESTS)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    return json.loads(get("/show").text)


def main(url=None):
    for on_conflict, label in (
        ("overwrite", "overwrite (the whole session is written back)"),
        ("merge", "merge (the default)"),
    ):
        print(f"{label}, of {REQUESTS} each:")
        for kind, number in run(on_conflict, url).items():
            print(f"    {number:2} {kind}")


if __name__ == "__main__":
    main(*sys.argv[1:])
