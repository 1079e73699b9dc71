"""Which numbers a picture was drawn from, kept in its file.

A picture has a digest of these numbers among its metadata, so that one that is stale is found without
comparing pixels, which differ from one version of matplotlib to the next.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

DIGEST = "Description"
"""Of the keywords that PNG knows, the one of the digest."""


def digest(values: Any) -> str:
    """Digest of numbers as JSON has them, to four decimals.

    >>> digest({'a': [1.00001]}) == digest({'a': [1.0]}) != digest({'a': [1.001]})
    True
    """
    rounded = json.loads(json.dumps(values), parse_float=lambda text: round(float(text), 4))
    return hashlib.blake2b(json.dumps(rounded, sort_keys=True).encode(), digest_size=8).hexdigest()


def shows(path: Path, values: Any) -> bool:
    """Whether a picture is there and was drawn from these numbers."""
    return digest_of(path) == digest(values)


def digest_of(path: Path) -> str | None:
    """The digest that a PNG or JPEG has; None if it has none, is not there, or is no picture any more."""
    try:
        with Image.open(path) as image:
            # (a JPEG has no keywords, but a comment)
            found = image.info.get(DIGEST, image.info.get("comment"))
    except (FileNotFoundError, UnidentifiedImageError):
        return None
    return found.decode("latin-1") if isinstance(found, bytes) else found
