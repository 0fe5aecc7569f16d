"""The application of ``site_without_store`` for a WSGI server; ``SETTINGS`` is its JSON."""

from __future__ import annotations

import json
import os

from tests.session.site_without_store import make_application

application = make_application(json.loads(os.environ["SETTINGS"]))
