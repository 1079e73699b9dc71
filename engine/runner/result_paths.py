"""Whether results can be written where they shall go: asked before the work, not after it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from beyonddrive.engine.config_bases import files_of
from beyonddrive.engine.config_values import ConfigError


def check_folder(folder: str | Path, name: str) -> None:
    """Make a folder if it is not there.

    Raises:
        ConfigError: If it cannot be made, is a file, or nothing can be written into it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _write_something(Path(folder))
    except FileExistsError:
        raise ConfigError(f"{name} {folder}: is no folder; give another") from None
    except OSError as error:
        raise ConfigError(f"{name} {folder}: cannot be written ({error.strerror}); give another") from error


def check_results(files: Mapping[str, str | Path | None], inputs: Iterable[str | Path] = ()) -> None:
    """Refuse files of results that could not be written, or would take the place of something else.

    Args:
        files: Where results go, by the name of the setting; None for those that are not asked for.
        inputs: Files that are read.

    Raises:
        ConfigError: If one is a folder, is read, or is named twice, or its folder cannot be written.
    """
    read = {Path(path).resolve() for path in inputs}
    taken: dict[Path, str] = {}
    for name, file in files.items():
        if file is None:
            continue
        path = Path(file).resolve()
        if path.is_dir():
            raise ConfigError(f"{name} {file}: is a folder; give the name of a file")
        if path in read:
            raise ConfigError(f"{name} {file}: is read by this command; give the results another name")
        if path in taken:
            raise ConfigError(f"{name} {file}: {taken[path]} has the same name; give two names")
        taken[path] = name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_something(path.parent)
        except OSError as error:
            raise ConfigError(f"{name} {file}: cannot be written ({error.strerror}); give another") from error


def _write_something(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".can_be_written.") as file:
        file.write(b"yes")


def files_read(config: Config) -> Iterator[Path]:
    """Files that a config was read from, its bases included, and those that it names and that are there."""
    if config.filename and Path(config.filename).is_file():
        yield from files_of(config.filename)
    yield from _files_in(config._cfg_dict)


def _files_in(node: Any) -> Iterator[Path]:
    if isinstance(node, (dict, list, tuple)):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _files_in(value)
    elif isinstance(node, (str, Path)) and 0 < len(str(node)) < 4096 and "\0" not in str(node):
        path = Path(node)
        try:
            if path.is_file():
                yield path
        except OSError:  # a name longer than the system takes
            return
