"""One module for each page, with its views.

A module has ``PATH``, ``TITLE`` and ``LEAD``, the names of the ``SETTINGS`` and the ``CODE`` that
are shown beside the page, and ``includeme``, which adds its routes.
"""

from . import cache, home, limits, login, outage, perl, record, session, tabs

#: In the order of the navigation. The first one is the home page.
PAGES = [home, cache, session, tabs, limits, login, record, outage, perl]
