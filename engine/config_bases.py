"""Bases of a config that set the same thing: merged in the order of ``_base_``, the last one wins.

mmengine refuses two bases that share a top-level name, so that a variant such as
``_base_ = ['./ltf-beyonddrive_....py', '../_base_/negatives/margin.py']``, which changes one value of
``model``, could not be added to a config by naming it.

A list is replaced as a whole. A base whose pipeline or hooks lack what an earlier base has put there would
take it out without a word, so it is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from beyonddrive.engine.config_values import ConfigError

_MARK = "_beyonddrive_bases"
_REFUSAL = "Duplicate key is not allowed among bases"
_are_joined: ContextVar[bool] = ContextVar("_are_joined", default=False)
"""Whether the next file that is read gets its bases as one."""


class _Bases(NamedTuple):
    """Stands for several bases as if they were one file."""

    files: list[tuple[str, str | None]]
    """Path and scope of each."""


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
    for index, (file, scope) in enumerate(bases.files):
        values, text, variables = Config._file2dict(file, *args, **kwargs)
        _refuse_lost_parts(merged, values, [Path(path).name for path, _ in bases.files[: index + 1]])
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


def _types(parts: Sequence[Any]) -> list[str]:
    return [part["type"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("type"), str)]
