"""Response headers."""

from __future__ import annotations


def add_vary(headers: list[tuple[str, str]], name: str) -> None:
    """Add a request header to ``Vary``, so that caches tell the responses apart."""
    for index, (header, value) in enumerate(headers):
        if len(header) == 4 and header.lower() == "vary":
            named = [item.strip().lower() for item in value.split(",")]
            if name.lower() not in named and "*" not in named:
                headers[index] = (header, f"{value}, {name}" if value.strip() else name)
            return
    headers.append(("Vary", name))
