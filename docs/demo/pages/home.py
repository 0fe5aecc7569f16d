"""The home page: what runs, and where to look."""

from pyramid.view import view_config

PATH = "/"
TITLE = "See it work"
LEAD = "A cache, sessions, rate limits and Perl sessions for Pyramid, on a key-value store."
SETTINGS = CODE = ()


def includeme(config):
    config.add_route("home", PATH)


@view_config(route_name="home", renderer="home.html")
def home(request):
    return {"description": request.registry["demo.store"].description}
