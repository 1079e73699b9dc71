"""The base of every error of the suite, and errors as reasons."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from typing import Any

_SHOWN = 5
_LONGEST = 300
"""A text of somebody else's is cut after so many characters."""


class BeyondDriveError(Exception):
    """Something cannot be done as asked; the message names file, key and remedy.

    Every error class of the suite derives from it, and from the built-in class that says its kind
    (``ValueError`` for what was given, ``RuntimeError`` for what happened), so that either can be caught.
    """


def describe_error(error: Exception, token: str = "") -> str:
    """Why a scene failed, in one line, to stand behind its token.

    Errors of the suite speak for themselves; others are named by their class.

    >>> describe_error(KeyError("x"))
    "KeyError: 'x'"
    >>> describe_error(BeyondDriveError("scene a1 of log b2: ego_dynamic_state is not finite"), "a1")
    'log b2: ego_dynamic_state is not finite'
    """
    text = str(error)
    if token:
        text = re.sub(rf"(?:scene )?{re.escape(token)}(?: of (log [^:]+))?: ", _log_alone, text)
    text = " ".join(text.split())
    return text if isinstance(error, BeyondDriveError) else f"{type(error).__name__}: {text}"


def clipped(text: str) -> str:
    """The beginning of a text that may quote what somebody else has sent.

    >>> clipped("no such page"), len(clipped("a" * 10**6))
    ('no such page', 304)
    """
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


class _Short(reprlib.Repr):
    """Writes little of a value, however much of it there is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxother = 2, 60
        self.repr_bytes = self.repr_str

    def repr_int(self, x: int, level: int) -> str:
        # (Python refuses to write integers of thousands of digits)
        return super().repr_int(x, level) if x.bit_length() < 100 else f"an integer of {x.bit_length()} bits"

    def repr_ndarray(self, x: Any, level: int) -> str:
        return f"array of {x.dtype}, {x.shape}"


_SHORT = _Short()


def shown(value: Any) -> str:
    """A value of somebody else's, as a message shows it: never long, and never slow to write.

    >>> shown([10**400, "a" * 1000, {"x": [[[1]]]}])
    "[an integer of 1329 bits, 'aaaaaaaaaaaa...aaaaaaaaaaaaa', {'x': [...]}]"
    """
    return _SHORT.repr(value)


def shorten(names: Sequence[str]) -> str:
    """The first few of many names, for messages.

    >>> shorten(list('abcdefg'))
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _log_alone(match: re.Match[str]) -> str:
    return f"{match[1]}: " if match[1] else ""
