"""The base of every error of the suite."""


class BeyondDriveError(Exception):
    """Something cannot be done as asked; the message names file, key and remedy.

    Every error class of the suite derives from it, and from the built-in class that says its kind
    (``ValueError`` for what was given, ``RuntimeError`` for what happened), so that either can be caught.
    """
