"""Digests by which values are told apart."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any


def digest_of(value: Any) -> str:
    """Digest of a JSON value.

    >>> digest_of(['a', 1]) == digest_of(('a', 1)) != digest_of(['a', 2])
    True
    """
    return blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()
