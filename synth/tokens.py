"""Names and tokens that follow from a seed by hashing, so that the same seed gives the same bytes."""

from __future__ import annotations

import hashlib


def token_of(*parts: object) -> str:
    """Return a token of 16 hex digits for what ``parts`` name.

    >>> token_of("log", 3)
    '05ea7e63d9f209b6'
    """
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def seed_of(*parts: object) -> int:
    """Return a seed in [0, 2**31) for what ``parts`` name."""
    return int(token_of("seed", *parts), 16) % 2**31
