"""Pictures of the documents that are drawn from what is kept."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from beyonddrive.engine.files import write_atomically
from beyonddrive.results.tables import RESULTS
from beyonddrive.visualization.picture_values import DIGEST, digest

PICTURES = RESULTS.parent / "docs" / "pictures"


def write_picture(path: Path, figure: Figure, values: Any) -> None:
    """Write a figure, as JPEG or PNG by its name, with the digest of the numbers that it shows."""
    file = BytesIO()
    if path.suffix == ".jpg":
        options = {"quality": 80, "optimize": True, "comment": digest(values)}
        figure.savefig(file, format="jpg", dpi=130, pil_kwargs=options)
    else:
        figure.savefig(file, format="png", dpi=110, metadata={DIGEST: digest(values)})
    write_atomically(path, file.getvalue())
