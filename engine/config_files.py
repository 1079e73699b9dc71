"""Where configs are: by path, as ``package::folder/name.py``, or by their bare name.

A package keeps its configs in its folder ``configs``, or in ``.mim/configs`` as the packages of mmlab do.
Bare names are looked for in this suite and in every package that brings planners to it; the parts in
``_base_`` have no bare name.
"""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path

from beyonddrive.engine.config_values import ConfigError
from beyonddrive.registry import SCOPE, plugin_entry_points

SHOWN_NAMES = 3
"""Names that a message suggests at most."""


class ConfigNameError(ConfigError):
    """No config, or more than one, has this name; the message names the nearest, or all of them."""


def config_packages() -> list[str]:
    """This suite, and every installed package that brings planners to it."""
    return [SCOPE, *dict.fromkeys(point.module.partition(".")[0] for point in plugin_entry_points())]


def package_folders(package: str) -> list[Path]:
    """Folders of an installed package, of which it mostly has one; none if it is not installed."""
    try:
        spec = importlib.util.find_spec(package.replace("-", "_"))
    except (ImportError, ValueError):
        return []
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []


def config_folder(package: str) -> Path | None:
    """Folder of the configs of an installed package; None if it has none, or is not installed."""
    for place in package_folders(package):
        for folder in (place / "configs", place / ".mim" / "configs"):
            if folder.is_dir():
                return folder
    return None


def recipes(package: str) -> dict[str, Path]:
    """The configs of a package that have a bare name, by their full one.

    >>> recipes("beyonddrive")["beyonddrive::human/human_synth.py"].name
    'human_synth.py'
    """
    folder = config_folder(package)
    if folder is None:
        return {}
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*.py"))}
    return {
        f"{package}::{name.as_posix()}": path
        for name, path in files.items()
        if "_base_" not in name.parts and name.name != "__init__.py"
    }


def find_config(name: str | Path) -> Path:
    """The file of a config.

    Args:
        name: A path; ``package::folder/name.py``; ``folder/name.py`` below the configs of a package, with or
            without ``configs/`` before it; or a bare name. ``.py`` may be left out.

    Raises:
        ConfigNameError: If there is none, or more than one.

    >>> find_config("human_synth") == find_config("beyonddrive::human/human_synth.py")
    True
    """
    name = str(name)
    if Path(name).is_file():
        return Path(name)
    package, separator, inside = name.partition("::")
    if separator:
        return _find_in_package(package, inside)
    is_bare = Path(name).name == name or not name
    look_up = _named if is_bare else _below
    found = {full: path for other in config_packages() for full, path in look_up(other, name).items()}
    if len(found) > 1:
        raise ConfigNameError(f"{name}: fits {len(found)} configs, say which: {', '.join(found)}")
    if found:
        return next(iter(found.values()))
    known = [full for other in config_packages() for full in recipes(other)]
    raise ConfigNameError(f"{name}: no such config; {_nearest(name, known)}")


def _named(package: str, name: str) -> dict[str, Path]:
    """Recipes of a package with this bare name."""
    stem = name.removesuffix(".py")
    return {full: path for full, path in recipes(package).items() if path.stem == stem}


def _below(package: str, name: str) -> dict[str, Path]:
    """The recipe of a package at this place below its configs."""
    inside = Path(name.removeprefix("configs/")).with_suffix(".py").as_posix()
    full = f"{package}::{inside}"
    return {known: path for known, path in recipes(package).items() if known == full}


def _find_in_package(package: str, name: str) -> Path:
    folder = config_folder(package)
    if folder is None:
        raise ConfigNameError(
            f"{package}::{name}: no package {package} with a folder of configs is installed"
        )
    for path in (folder / name, folder / f"{name}.py"):
        if path.is_file():
            return path
    found = _named(package, name)
    if len(found) > 1:
        raise ConfigNameError(f"{package}::{name}: fits {len(found)} configs, say which: {', '.join(found)}")
    if found:
        return next(iter(found.values()))
    raise ConfigNameError(f"{package}::{name}: no such config; {_nearest(name, list(recipes(package)))}")


def _nearest(name: str, known: list[str]) -> str:
    """What may have been meant, or where to look."""
    wanted = Path(name).name.removesuffix(".py").lower()
    stems = {full: full.rpartition("/")[2].rpartition("::")[2].removesuffix(".py") for full in known}
    near = difflib.get_close_matches(wanted, list(stems.values()), SHOWN_NAMES, 0.6)
    parts = [stem for stem in stems.values() if len(wanted) > 2 and wanted in stem]
    names = list(dict.fromkeys([*parts, *near]))[:SHOWN_NAMES]
    if not names:
        return "beyonddrive list configs names all"
    return f"did you mean {' or '.join(names)}?"
