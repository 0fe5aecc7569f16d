"""Response headers."""

from __future__ import annotations


def add_vary(headers: list[tuple[str, str]], name: str) -> None:
    """Add a request header to ``Vary``, so that caches tell the responses apart."""
    for header, value in headers:
        if len(header) == 4 and header.lower() == "vary":
            named = [item.strip().lower() for item in value.split(",")]
            if name.lower() not in named and "*" not in named:
                place = headers.index((header, value))
                headers[place] = (header, f"{value}, {name}" if value.strip() else name)
            return
    headers.append(("Vary", name))
