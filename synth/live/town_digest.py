"""What towns hold, in a few letters: by it a run knows that it goes on in the towns that it began in."""

from __future__ import annotations

import sqlite3
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from beyonddrive.structures.digests import digest_of_bytes, digest_of_lines
from beyonddrive.synth.live.town import IDS, MAP, NETWORK, STATIC, TOWN


def town_digest(folder: Path) -> str | None:
    """Digest of a town: its streets, its map, what stands in it, and what it follows from.

    Towns that are built anew have that of before: when a network was written, and by which version of SQLite
    a map was, is in their files and not in the digest.

    Returns:
        None if the town is not there, or a file of it cannot be read: none of its scenarios can be driven.
    """
    try:
        lines = [f"{name} {digest_of_bytes((folder / name).read_bytes())}" for name in (TOWN, IDS, STATIC)]
        # (without comments, the first of which tells the time)
        streets = ElementTree.canonicalize(from_file=folder / NETWORK)
        lines.append(f"{NETWORK} {digest_of_bytes(streets.encode())}")
        lines += [f"{MAP} {digest_of_bytes(row.encode())}" for row in _map_rows(folder / MAP)]
    except (OSError, ElementTree.ParseError, sqlite3.Error):
        return None
    return digest_of_lines(lines)


def _map_rows(path: Path) -> Iterator[str]:
    """All rows of a map's layers as texts, each with the name of its layer."""
    # (as a link it would be looked for by its own name, and without a file an empty one would be made)
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        for (layer,) in connection.execute("SELECT table_name FROM gpkg_contents").fetchall():
            quoted = '"' + layer.replace('"', '""') + '"'
            for row in connection.execute(f"SELECT * FROM {quoted}"):
                yield f"{layer} {row!r}"
