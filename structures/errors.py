"""The base of every error of the suite, and errors as reasons."""

from __future__ import annotations

import re


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


def _log_alone(match: re.Match[str]) -> str:
    return f"{match[1]}: " if match[1] else ""
