"""Pictures of the documents that are drawn from kept tables, and whether they show what is in these now.

A picture has a digest of the numbers that it was drawn from among its metadata, so that ``results/check.py``
finds one that is stale without comparing pixels, which differ from one version of matplotlib to the next.
"""

from __future__ import annotations

import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from beyonddrive.engine.files import write_atomically
from beyonddrive.results.tables import RESULTS

PICTURES = RESULTS.parent / "docs" / "pictures"
_KEY = "Description"
"""Of the digest, among the keywords that PNG knows."""


def digest(values: Any) -> str:
    """Digest of numbers as JSON has them, to four decimals.

    >>> digest({'a': [1.00001]}) == digest({'a': [1.0]}) != digest({'a': [1.001]})
    True
    """
    rounded = json.loads(json.dumps(values), parse_float=lambda text: round(float(text), 4))
    return hashlib.blake2b(json.dumps(rounded, sort_keys=True).encode(), digest_size=8).hexdigest()


def write_picture(path: Path, figure: Figure, values: Any) -> None:
    """Write a figure as PNG, with the digest of the numbers that it shows."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={_KEY: digest(values)})
    write_atomically(path, file.getvalue())


def shows(path: Path, values: Any) -> bool:
    """Whether a picture is there and was drawn from these numbers."""
    if not path.exists():
        return False
    with Image.open(path) as image:
        return bool(image.info.get(_KEY) == digest(values))
