"""Values of settings: read from the text of a command line, and held against what a reader of them takes.

Imports nothing heavy, so that a command line can be read before anything else is.
"""

from __future__ import annotations

import difflib
import os
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from beyonddrive.structures.errors import BeyondDriveError

_SHOWN = 12
_BRACKETS = {"[": "]", "(": ")"}
_NUMBERS = {int, float, bool}
_TEXTS: set[Any] = {str, Path, os.PathLike}


class ConfigError(BeyondDriveError, ValueError):
    """A config or a command line asks for something that cannot be done; the message says what to change."""


class OptionText(str):
    """Value of an option as it was typed; what it means depends on the setting that it is for."""


def is_folder(name: str) -> bool:
    """Whether a name at the top of a config is that of a folder which its paths build on.

    >>> is_folder('data_root'), is_folder('work_dir')
    (True, False)
    """
    return name.endswith(("_root", "_dir")) and name != "work_dir"


def nearest(name: str, known: Collection[str]) -> str:
    """The end of a message about a name that is not known: what was meant, or what there is.

    >>> nearest('max_epoch', ['max_epochs', 'val_interval'])
    'did you mean max_epochs?'
    >>> nearest('x', ['a', 'b'])
    'there is a, b'
    """
    close = difflib.get_close_matches(name, known, 1)
    if not close:  # another case, or a longer form of it
        close = [other for other in sorted(known) if len(name) > 2 and name.lower() == other.lower()]
    if close:
        return f"did you mean {close[0]}?"
    shown = sorted(known)[:_SHOWN]
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"there is {', '.join(shown)}{more}" if shown else "it has no settings"


def read_text(text: str, old: Any, annotation: Any) -> Any:
    """The value that a text means for a setting.

    Where the config has a text, or the reader takes nothing but texts or has it among its choices, it stays
    as it is: a folder may be called ``2024, spring``. ``None`` is nothing. Elsewhere it is a number, ``true``
    or ``false``, a list ``a,b`` or ``[a,b]``, a tuple ``(a,b)``, any of these inside each other, or else a
    text.

    Args:
        text: What was typed.
        old: Value that the config has; None without one.
        annotation: Type of the argument that reads it; None if it is not known.

    Raises:
        ConfigError: If brackets do not match.

    >>> read_text('2024, spring', 'data', None), read_text('7', None, str)
    ('2024, spring', '7')
    >>> read_text('1,2.pth', True, bool | str), read_text('false', True, bool | str)
    ('1,2.pth', False)
    >>> read_text('7', 3, None), read_text('[(1,2.5),a b,true]', [], None)
    (7, [(1, 2.5), 'a b', True])
    >>> read_text('none', None, typing.Literal['error', 'none']), read_text('none', None, None)
    ('none', None)
    """
    text = str(text)
    if text == "None":
        return None
    admitted = members(annotation)
    if text in _choices(admitted):
        return text
    if isinstance(old, str) and not (_admits_lists(admitted) and ("," in text or text[:1] in _BRACKETS)):
        return text
    if admitted and admitted <= _TEXTS | {type(None)}:
        return text
    value = _parse(text.strip())
    if str not in admitted or isinstance(value, bool) or _admits_lists(admitted):
        return value
    return (
        value if isinstance(value, tuple({int, float} & admitted)) else text
    )  # a file may be called 1,2.pth


def item_text(text: str) -> str:
    """A text as an item of a list that :func:`read_text` reads, in quotes where it would be something else.

    Raises:
        ConfigError: If it cannot be said.

    >>> item_text('a b'), item_text('12'), item_text('true')
    ('a b', "'12'", "'true'")
    """
    for form in (text, f"'{text}'", f'"{text}"'):
        with suppress(ConfigError):
            if [(type(item), item) for item in _parse(f"[{form}]")] == [(str, text)]:
                return form
    raise ConfigError(f"{text!r} has a comma or a bracket, and can be no item of a list on a command line")


def _parse(text: str) -> Any:
    if text[:1] in _BRACKETS:
        if _BRACKETS[text[0]] != text[-1:] or len(_split(text)) > 1:
            raise ConfigError(f"{text}: brackets do not match")
        items = [_parse(item) for item in _split(text[1:-1])]
        return tuple(items) if text[0] == "(" else items
    items = _split(text)
    if len(items) > 1 or (text.endswith(",") and items):
        return [_parse(item) for item in items]
    if text[:1] in "'\"" and text[:1] == text[-1:] and len(text) > 1:
        return text[1:-1]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _split(text: str) -> list[str]:
    """Items between the commas that are in no brackets."""
    items, depth, start = [], [], 0
    for index, letter in enumerate(text):
        if letter in _BRACKETS:
            depth.append(_BRACKETS[letter])
        elif letter in _BRACKETS.values():
            if not depth or depth.pop() != letter:
                raise ConfigError(f"{text}: brackets do not match")
        elif letter == "," and not depth:
            items.append(text[start:index])
            start = index + 1
    if depth:
        raise ConfigError(f"{text}: brackets do not match")
    items.append(text[start:])
    return [item.strip() for item in items if item.strip()]


def members(annotation: Any) -> set[Any]:
    """The types that an annotation joins; empty if it says nothing.

    >>> members(int | None) == {int, type(None)}, members(None), members(typing.Any)
    (True, set(), set())
    """
    if annotation is None or annotation is typing.Any or isinstance(annotation, (str, typing.TypeVar)):
        return set()
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [members(part) for part in typing.get_args(annotation)]
        return set().union(*parts) if all(parts) else set()
    if typing.get_origin(annotation) is typing.Annotated:
        return members(typing.get_args(annotation)[0])
    return {annotation}


def _choices(admitted: Iterable[Any]) -> list[Any]:
    """Values that the ``Literal`` types among these name."""
    return [
        choice
        for kind in admitted
        if typing.get_origin(kind) is typing.Literal
        for choice in typing.get_args(kind)
    ]


def _admits_lists(admitted: Iterable[Any]) -> bool:
    kinds = [typing.get_origin(kind) or kind for kind in admitted]
    return any(isinstance(kind, type) and issubclass(kind, Sequence) and kind is not str for kind in kinds)


def _is_mapping(kind: Any) -> bool:
    kind = typing.get_origin(kind) or kind
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _is_built_or_holds(kind: Any) -> bool:
    """Whether a type is a mapping or a list, or what is built of settings, such as a module or a hook."""
    is_built = isinstance(kind, type) and kind.__module__.startswith(("torch.", "mmengine."))
    return is_built or _is_mapping(kind) or _admits_lists([kind])


def misfit(value: Any, annotation: Any) -> str | None:
    """What a reader takes instead of a value that it cannot take; None if it may take it.

    >>> misfit('poled', typing.Literal['pair', 'pooled'])
    "it is 'pair' or 'pooled'"
    >>> misfit('many', int | None), misfit(3, str), misfit(3, float), misfit(1.5, int)
    ('it is a number', 'it is a text', None, 'it is a whole number')
    >>> misfit(True, float), misfit(True, bool | float)
    ('it is a number', None)
    >>> misfit(5.0, dict[str, int] | list[dict[str, int]] | None), misfit('a', Mapping[str, int] | str)
    ('it is a mapping of settings, name by name', None)
    """
    admitted = members(annotation)
    if not admitted or value is None or isinstance(value, (dict, list, tuple)):
        return None
    choices = _choices(admitted)
    rest = {kind for kind in admitted if typing.get_origin(kind) is not typing.Literal} - {type(None)}
    if choices and not rest:
        return None if value in choices else f"it is {' or '.join(map(repr, choices))}"
    if choices:
        return None
    if isinstance(value, str) and rest and rest <= _NUMBERS:
        return "it is true or false" if rest == {bool} else "it is a number"
    if isinstance(value, bool) and rest & {int, float} and not rest & {bool, object}:
        return "it is a number"
    if isinstance(value, float) and not value.is_integer() and rest and rest <= {int, bool}:
        return "it is a whole number"
    if type(value) in _NUMBERS and rest and rest <= _TEXTS:
        return "it is a text"
    is_plain = isinstance(value, (str, *_NUMBERS))
    if is_plain and any(map(_is_mapping, rest)) and all(map(_is_built_or_holds, rest)):
        return "it is a mapping of settings, name by name"
    return None
