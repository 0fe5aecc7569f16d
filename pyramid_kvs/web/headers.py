"""Response headers."""

from __future__ import annotations


def add_vary(headers: list[tuple[str, str]], name: str) -> None:
    """Add a request header to ``Vary``, so that caches tell the responses apart."""
    if "vary" not in " ".join(dict(headers)).lower():  # nearly always, without a loop in Python
        headers.append(("Vary", name))
        return
    for index, (header, value) in enumerate(headers):
        if header.lower() == "vary":
            named = [item.strip().lower() for item in value.split(",")]
            if name.lower() not in named and "*" not in named:
                headers[index] = (header, f"{value}, {name}" if value.strip() else name)
            return
    headers.append(("Vary", name))
