"""Image files: whether one is whole, which decoders do not tell."""

from __future__ import annotations

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"


def is_truncated(data: bytes) -> bool:
    r"""Whether a JPEG or PNG lacks its end; bytes behind it mean nothing, other formats are not looked at.

    A decoder fills the missing part of a truncated file with grey and says nothing.

    >>> is_truncated(b"\xff\xd8\xff\xda\x00\x02\x01\x02"), is_truncated(b"")
    (True, False)
    """
    if data.startswith(_JPEG):
        return not _has_jpeg_end(data)
    return data.startswith(_PNG) and not _has_png_end(data)


def _has_jpeg_end(data: bytes) -> bool:
    """Go from segment to segment: those before the first scan may hold a thumbnail with an end of its own."""
    position = len(_JPEG)
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF or marker == _START_OF_SCAN:
            # In a scan the byte FF is never followed by D9. Decoders pass over what is no segment.
            # (from behind, where it is: a search from here would read the whole scan)
            return data.rfind(_END_OF_IMAGE, position) >= 0
        if marker == 0xFF:  # a filling byte
            position += 1
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _has_png_end(data: bytes) -> bool:
    position = len(_PNG)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + length
    return False
