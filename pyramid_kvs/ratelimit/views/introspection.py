"""Showing limits: in ``pviews``, and in Pyramid's introspection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pyramid.registry import Introspectable
from pyramid.request import Request

if TYPE_CHECKING:
    from ..limits import Limit
    from ..registry import ViewLimits

CATEGORY = "kvs rate limits"


class IntrospectionPredicate:
    """Shows the limits of a view among its predicates, in ``pviews``; it is always true."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, context: Any, request: Request) -> bool:
        return True

    def text(self) -> str:
        return self._text


def add_introspection(found: ViewLimits, info: Any) -> None:
    """Show the limits of a view that is being derived."""
    description = describe(found.limits.limits) or "exempt"
    introspectable = Introspectable(
        CATEGORY, (CATEGORY, found.label, description), found.label, "view"
    )
    introspectable["view"] = found.label
    introspectable["limits"] = description
    info.registry.introspector.add(introspectable)
    if isinstance(info.predicates, list):
        info.predicates.append(IntrospectionPredicate(f"ratelimit = {description}"))


def describe(limits: Iterable[Limit]) -> str:
    """Return limits in one line."""
    return ", ".join(map(_description, limits))


def _description(limit: Limit) -> str:
    notes = f" ({limit.notes})" if limit.notes else ""
    return f"{limit.name}: {limit.rule.limit} in {limit.window:g} s by {limit.by}{notes}"
