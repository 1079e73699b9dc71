"""Bases of a config that set the same thing: merged in the order of ``_base_``, the last one wins.

mmengine refuses two bases that share a top-level name, so that a variant such as
``_base_ = ['./ltf-beyonddrive_....py', '../_base_/negatives/margin.py']``, which changes one value of
``model``, could not be added to a config by naming it.

A list is replaced as a whole. A base whose pipeline or hooks lack what an earlier base has put there would
take it out without a word, so it is refused. So is one that replaces the selection of negatives, or how they
are mined, by ``_delete_``, if it lacks what an earlier base has chosen there.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from beyonddrive.engine.config_readers import find
from beyonddrive.engine.config_values import ConfigError

_MARK = "_beyonddrive_bases"
_REFUSAL = "Duplicate key is not allowed among bases"
_CHOSEN = ("negative_selection", "negative_mining")
"""Settings of which several bases choose values; others are replaced as whoever writes ``_delete_`` says."""
_are_joined: ContextVar[bool] = ContextVar("_are_joined", default=False)
"""Whether the next file that is read gets its bases as one."""
_known: ContextVar[dict[Any, Any] | None] = ContextVar("_known", default=None)
"""What files said that the reading of one config has come across; None outside of it."""

_Read = Callable[[str], Mapping[str, Any]]


class _Bases(NamedTuple):
    """Stands for several bases as if they were one file."""

    files: list[tuple[str, str | None]]
    """Path and scope of each."""


class _Said(NamedTuple):
    """What one base says."""

    path: str
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        return Path(self.path).name


def apply() -> None:
    """Let bases share names; calling it again changes nothing."""
    if hasattr(Config._file2dict, _MARK):
        return
    Config._get_base_files = staticmethod(_get_base_files(Config._get_base_files))
    Config._get_cfg_path = staticmethod(_get_cfg_path(Config._get_cfg_path))
    Config._file2dict = staticmethod(_file2dict(Config._file2dict))


def files_of(path: str | Path) -> Iterator[Path]:
    """A config file and all of its bases, at any depth."""
    yield Path(path)
    for base in Config._get_base_files(str(path)):
        yield from files_of(Config._get_cfg_path(base, str(path))[0])


@contextmanager
def _joined(value: bool) -> Iterator[None]:
    token = _are_joined.set(value)
    try:
        yield
    finally:
        _are_joined.reset(token)


def _get_base_files(original: Callable[[str], list[str]]) -> Callable[[str], list[Any]]:
    @functools.wraps(original)
    def get(filename: str) -> list[Any]:
        files = original(filename)
        return [_Bases([(file, None) for file in files])] if _are_joined.get() else files

    return get


def _get_cfg_path(original: Callable[[str, str], tuple[str, str | None]]) -> Callable[[Any, str], Any]:
    @functools.wraps(original)
    def get(cfg_path: Any, filename: str) -> Any:
        if isinstance(cfg_path, _Bases):
            return _Bases([original(file, filename) for file, _ in cfg_path.files]), None
        return original(cfg_path, filename)

    return get


def _file2dict(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def read(filename: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(filename, _Bases):
            with _joined(False):
                return _read_all(filename, *args, **kwargs)
        known = _known.get()
        if known is None:
            token = _known.set({})
            try:
                return read_once(filename, *args, **kwargs)
            finally:
                _known.reset(token)
        # (a file is met again as the base of several, and when bases turn out to share names)
        place = os.path.normpath(Path(filename).expanduser().absolute())
        key = place, args, tuple(sorted(kwargs.items()))
        if key not in known:
            known[key] = read_once(filename, *args, **kwargs)
        return copy.deepcopy(known[key])

    def read_once(filename: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(filename, *args, **kwargs)
        except KeyError as error:
            if _REFUSAL not in str(error) or _are_joined.get():
                raise
        with _joined(True):
            return original(filename, *args, **kwargs)

    setattr(read, _MARK, True)
    return read


def _read_all(bases: _Bases, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """The bases merged, their texts, and the environment variables that they read."""
    merged: dict[str, Any] = {}
    texts: list[str] = []
    environment: dict[str, Any] = {}
    said: list[_Said] = []

    def read(path: str) -> Mapping[str, Any]:
        values: Mapping[str, Any] = Config._file2dict(path, *args, **kwargs)[0]
        return values

    for file, scope in bases.files:
        values, text, variables = Config._file2dict(file, *args, **kwargs)
        said.append(_Said(file, values))
        _refuse_lost_parts(merged, values, [base.name for base in said])
        for key in _CHOSEN:
            _refuse_lost_choices(merged.get(key), values.get(key), said, (key,), read)
        merged = Config._merge_a_into_b(Config._dict_to_config_dict(values, scope), merged)
        texts.append(text)
        environment.update(variables)
    return merged, "\n".join(texts), environment


def _refuse_lost_parts(
    before: Mapping[str, Any], values: Mapping[str, Any], files: Sequence[str], where: str = ""
) -> None:
    """Refuse a base whose lists lack components that those of the bases before it have.

    Args:
        before: What the earlier bases say.
        values: What the next one says.
        files: Names of the bases, the next one last.
        where: Setting that holds both.

    Raises:
        ConfigError: Names the setting and the components.
    """
    for key in (key for key in values if key in before):
        old, new, name = before[key], values[key], f"{where}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if not new.get("_delete_"):
                _refuse_lost_parts(old, new, files, f"{name}.")
        elif isinstance(old, list) and isinstance(new, list):
            kept = _types(new)
            if lost := [part for part in _types(old) if part not in kept]:
                raise ConfigError(
                    f"{name}: {files[-1]} would take {', '.join(lost)} out, which an earlier base "
                    f"({', '.join(files[:-1])}) has put there, because a list is replaced as a whole. Leave "
                    f"one of them out, and write all of {name} in the config itself"
                )


def _refuse_lost_choices(
    old: Any, new: Any, said: Sequence[_Said], where: tuple[str, ...], read: _Read
) -> None:
    """Refuse a base that replaces a mapping by ``_delete_`` and lacks what an earlier base has chosen in it.

    The values that the mapping had where it was first written are nobody's choice.

    Args:
        old: What the earlier bases say of the setting.
        new: What the next one says of it.
        said: The bases, the next one last.
        where: Keys that lead to the setting.
        read: Gives what a file says, its bases included.

    Raises:
        ConfigError: Names both files, the keys and the remedy.
    """
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return
    if not new.get("_delete_"):
        for key in new.keys() & old.keys():
            _refuse_lost_choices(old[key], new[key], said, (*where, key), read)
        return
    *earlier, last = said
    written = (_first_said(base.path, where, read) for base in earlier)
    begun: Mapping[str, Any] = next((part for part in written if part), {})
    first, kept = ({**_defaults(part.get("type")), **part} for part in (begun, new))
    chosen = [key for key in old if all(key not in part or part[key] != old[key] for part in (first, kept))]
    if not chosen:
        return
    name, by = ".".join(where), [_last_said(earlier, where, key) for key in chosen]
    files, keys = " and ".join(dict.fromkeys(by)), ", ".join(f"{name}.{key}" for key in chosen)
    shown = ", ".join(f"{key}={old[key]!r} ({file})" for key, file in zip(chosen, by, strict=True))
    raise ConfigError(
        f"{name}: {last.name} replaces it as a whole and would take out what earlier bases have chosen: "
        f"{shown}. If both shall count, name {last.name} before {files}; else leave one of them out, and "
        f"set {keys} in the config itself"
    )


def _first_said(path: str, where: tuple[str, ...], read: _Read) -> Any:
    """The value of a setting in the first of a file and its bases, in their order, that has it; or None."""
    for base in Config._get_base_files(path):
        if (found := _first_said(Config._get_cfg_path(base, path)[0], where, read)) is not None:
            return found
    return _at(read(path), where)


def _last_said(said: Sequence[_Said], where: Sequence[str], key: str) -> str:
    """Name of the last base that gives this key of a setting."""
    return [base.name for base in said if key in (_at(base.values, where) or {})][-1]


def _at(values: Any, where: Sequence[str]) -> Any:
    for key in where:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _defaults(name: Any) -> dict[str, Any]:
    """Arguments that a type has by default."""
    target = find(name, None) if name is not None else None
    if target is None:
        return {}
    parameters = inspect.signature(target).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def _types(parts: Sequence[Any]) -> list[str]:
    return [part["type"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("type"), str)]
