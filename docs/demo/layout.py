"""The frame of a page: navigation, the live part, and the settings and code beside it."""

import inspect
import json
import re
import sys
from html import escape
from pathlib import Path
from string import Template

from pyramid.csrf import get_csrf_token

FOLDER = Path(__file__).parent
KEYWORDS = "as|def|else|except|for|from|if|import|in|is|nonlocal|not|or|return|try|with"
TOKENS = re.compile(
    r'(?P<string>"""(?s:.*?)"""|"[^"\n]*")|(?P<comment>#[^\n]*)|(?P<decorator>@\w+)'
    rf"|\b(?P<keyword>{KEYWORDS}|True|False|None|true|false|null)\b"
)


def page_renderer(info):
    """Return the renderer for a template, as in ``renderer="cache.html"``.

    A view returns what fills the template. ``title`` and ``lead`` replace those of its module.
    """
    name = info.name.removesuffix(".html")

    def render(values, system):
        page = sys.modules[system["view"].__module__]
        return show(
            system["request"], page, name, {"title": page.TITLE, "lead": page.LEAD, **values}
        )

    return render


def show(request, page, name, values):
    """Return a page as HTML.

    :param page: the module of the view, one of ``demo.pages``.
    :param name: the name of the template. The module's main page has the module's name.
    """
    get_csrf_token(request)  # sets its cookie
    values = {key: escape(str(value)) for key, value in values.items()}
    is_main = page.__name__.endswith(f".{name}")
    return template("layout").substitute(
        title=values["title"],
        lead=values["lead"],
        script=script(name),
        nav=navigation(page),
        store=escape(request.registry["demo.store"].title),
        body=template(name).substitute(values),
        beside=beside(page, request.registry.settings) if is_main else "",
    )


def template(name):
    return Template((FOLDER / "templates" / f"{name}.html").read_text(encoding="utf-8"))


def script(name):
    if not (FOLDER / "static" / f"{name}.js").exists():
        return ""
    return f'<script type="module" src="/static/{name}.js"></script>'


def navigation(current):
    from .pages import PAGES

    return "".join(
        f'<li><a href="{page.PATH}"{" aria-current=page" * (page is current)}>{page.TITLE}</a></li>'
        for page in PAGES[1:]
    )


# -- settings and code ---------------------------------------------------------------------


def beside(page, settings):
    """Return the settings and the code of a page; both are what runs."""
    if not page.CODE:
        return ""
    shown = "\n".join(as_ini(name, settings[name]) for name in page.SETTINGS)
    code = "\n\n".join(inspect.getsource(item).rstrip() for item in page.CODE)
    parts = block("Settings", shown) + block("Code", code)
    return f'<aside aria-label="Settings and code">{parts}</aside>'


def as_ini(name, value):
    """Return a setting as an ini file has it, with a line for each key."""
    if not value:
        return f"# No limits for all views. Each route has its own.\n{name} = []"
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(value[key])}" for key in value)
    return f"{name} = {{\n{lines}}}"


def block(title, text):
    return (
        f"<h2>{title}</h2>"
        f'<pre tabindex="0" role="region" aria-label="{title}"><code>{highlight(text)}</code></pre>'
    )


def highlight(text):
    """Return code as HTML, with its strings, comments and keywords marked."""
    html, end = "", 0
    for found in TOKENS.finditer(text):
        html += escape(text[end : found.start()])
        html += f'<span class="{found.lastgroup}">{escape(found[0])}</span>'
        end = found.end()
    return html + escape(text[end:])
