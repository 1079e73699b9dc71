"""Image files: what is wrong with one that decoders read all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_END_OF_IMAGE = b"\xff\xd9"
_START_OF_SCAN, _HUFFMAN_TABLES, _SEQUENTIAL = 0xDA, 0xC4, (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of headers that tell a size; the others of this range begin tables."""
_END_OF_BLOCK = 0
_STANDARD = {0: 0x01, 1: _END_OF_BLOCK}
"""First symbols of the AC tables of a JPEG that has none (ITU T.81, annex K), by number of the table."""
LOST = bytes(512)
"""What a lost sector of a disk reads as. See :func:`_are_no_picture` for why no picture holds it."""


def image_damage(data: bytes) -> str:
    r"""What is wrong with a JPEG or PNG that decoders would fill with grey; empty if nothing is.

    It lacks its end, or a part of a JPEG reads as zeros, as on a disk that has lost it. Bytes behind the end
    mean nothing, other formats are not looked at. Zeros are found in sequential JPEGs unless a flat block is
    zeros there: of progressive ones, and of those with Huffman tables for a flat picture, zeros tell nothing.

    >>> image_damage(b"\xff\xd8\xff\xda\x00\x02\x01\x02"), image_damage(b"")
    ('is truncated', '')
    """
    if data.startswith(_JPEG):
        return _jpeg_damage(data)
    return "is truncated" if data.startswith(_PNG) and not _has_png_end(data) else ""


def image_size(data: bytes) -> tuple[int, int]:
    r"""Width and height of a JPEG or PNG as its header tells them, before anything is decoded.

    (0, 0) of other formats, and where the header is cut off.

    >>> image_size(b"\x89PNG\r\n\x1a\n" + bytes(8) + b"\x00\x00\x07\x80\x00\x00\x04\x38")
    (1920, 1080)
    """
    if data.startswith(_PNG):
        place, size = len(_PNG) + 8, 4
        width, height = data[place : place + size], data[place + size : place + 2 * size]
    else:
        segments = _segments(data) if data.startswith(_JPEG) else ()
        start = next((segment.start for segment in segments if segment.marker in _FRAMES), len(data))
        height, width = data[start + 1 : start + 3], data[start + 3 : start + 5]
    return int.from_bytes(width, "big"), int.from_bytes(height, "big")


class _Segment(NamedTuple):
    """A segment of a JPEG: its marker, and where its content begins and ends."""

    marker: int
    start: int
    end: int


def _jpeg_damage(data: bytes) -> str:
    segments = list(_segments(data))
    scan = segments[-1].end if segments else len(_JPEG)
    # In a scan the byte FF is never followed by D9. (From behind, where it is: a search from here would read
    # the whole scan.)
    if data.rfind(_END_OF_IMAGE, scan) < 0:
        return "is truncated"
    lost = data.find(LOST, scan)
    if lost < 0 or data.find(_END_OF_IMAGE, scan, lost) >= 0 or not _are_no_picture(data, segments):
        return ""
    return f"has lost a part of its pixels, from byte {lost} on"


def _segments(data: bytes) -> Iterator[_Segment]:
    """Segments up to the header of the first scan, or to what is no segment, which decoders pass over.

    Those before the scan may hold a thumbnail with an end, or scans, of its own.
    """
    position = len(_JPEG)
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a filling byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield _Segment(marker, position + 4, end)
        if marker == _START_OF_SCAN:
            return
        position = end


def _are_no_picture(data: bytes, segments: list[_Segment]) -> bool:
    """Whether zeros as long as :data:`LOST` in the first scan of a JPEG cannot be what an encoder wrote.

    Zeros are the first code of a Huffman table again and again. Where that code ends a block, they are flat
    blocks: 12 kB of them for a grey picture of 1920 x 1080 with tables of its own. Where it stands for a
    coefficient, as in the usual table for brightness, they are blocks whose 63 coefficients are all the
    same, which is no picture. A run without one whole block of this kind has at most 63 codes of 8 bits and
    their values of 10 before and behind it, and 9 blocks of other components between, some 300 bytes.
    """
    frame = next((segment for segment in segments if segment.marker in _SEQUENTIAL), None)
    if frame is None or (header := segments[-1]).marker != _START_OF_SCAN:
        return False
    try:
        if data[header.start] != data[frame.start + 5]:
            return False  # a scan of some components, which may be the flat ones
        first = _first_codes(data, segments)
        tables = [data[header.start + 2 + 2 * index] & 0x0F for index in range(data[header.start])]
    except IndexError:
        return False  # (no decoder reads that)
    return any(first.get(table, _END_OF_BLOCK) != _END_OF_BLOCK for table in tables)


def _first_codes(data: bytes, segments: list[_Segment]) -> dict[int, int]:
    """What the first code of each AC table stands for, by number of the table."""
    first = dict(_STANDARD)
    for _, start, end in (segment for segment in segments if segment.marker == _HUFFMAN_TABLES):
        position = start
        while position < end:
            kind, table = divmod(data[position], 16)
            if kind == 1:
                first[table] = data[position + 17]
            position += 17 + sum(data[position + 1 : position + 17])
    return first


def _has_png_end(data: bytes) -> bool:
    position = len(_PNG)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + length
    return False
