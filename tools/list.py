"""Name what there is: ``beyonddrive list``, or ``beyonddrive list planners configs``.

One line for each component, of this suite and of every plugin, with the first line of its documentation.
The lines of plugins end with the name of their package.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from beyonddrive.tools._command_line import command_parser, run_command

if TYPE_CHECKING:
    from beyonddrive.registry import Registry

Line = tuple[str, str]
"""A name, and what it is."""


def first_line(text: str | None) -> str:
    """First line of a docstring, without markup.

    >>> first_line("As :class:`~beyonddrive.heads.base.TrajectoryHead`, ``twice``.  More.")
    'As TrajectoryHead, twice.  More.'
    """
    line = (text or "").strip().partition("\n")[0]
    line = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", line)
    return line.replace("``", "")


def first_sentence(path: Path) -> str:
    """First sentence of the comment, or of the docstring, that a config starts with."""
    text = path.read_text()
    comment = re.match(r"(?:#.*\n)*", text)
    lines = [line.lstrip("# ") for line in comment[0].splitlines()] if comment else []
    said = " ".join(lines) or first_line(ast.get_docstring(ast.parse(text)))
    return re.split(r"(?<=\.) ", said, maxsplit=1)[0].rstrip(".:")


def described(name: str, component: Callable[..., object]) -> Line:
    """Line of a registered component."""
    package = component.__module__.partition(".")[0]
    origin = "" if package == "beyonddrive" else f" [{package}]"
    return name, first_line(component.__doc__) + origin


def registered(registry: Registry) -> list[Line]:
    """What is registered, without what other libraries register."""
    registry.import_from_location()
    return [described(name, component) for name, component in sorted(registry.module_dict.items())]


def models(wanted: str) -> list[Line]:
    """Models of a kind: planners by their class, heads and losses by their names, parts are the rest."""
    from beyonddrive.plugins.base.planner import Planner
    from beyonddrive.registry import MODELS

    def kind_of(name: str, component: Callable[..., object]) -> str:
        if isinstance(component, type) and issubclass(component, Planner):
            return "planners"
        return {"Head": "heads", "Loss": "losses"}.get(name[-4:], "parts")

    MODELS.import_from_location()
    found = sorted(MODELS.module_dict.items())
    return [described(name, component) for name, component in found if kind_of(name, component) == wanted]


def configs() -> list[Line]:
    """Recipes by the name that :func:`find_config` takes."""
    from beyonddrive.engine.config_files import config_packages, recipes

    lines = []
    for package in config_packages():
        for full, path in recipes(package).items():
            lines.append((path.stem if package == "beyonddrive" else full, first_sentence(path)))
    return lines


def published() -> list[Line]:
    """Releases whose checkpoints are read."""
    from beyonddrive.checkpoints.releases import package_of, releases

    return [
        (name, f"{release.model.removesuffix('.py')}, read by {package_of(release)}")
        for name, release in sorted(releases().items())
    ]


def plugins() -> list[Line]:
    """Installed packages that bring components, and whether they could be imported."""
    from beyonddrive.registry import import_plugins, plugin_entry_points

    problems = import_plugins()
    lines = []
    for point in plugin_entry_points():
        package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module
        problem = problems.get(point.name)
        lines.append((point.name, f"{package}: {point.value}" + (f", BROKEN: {problem}" if problem else "")))
    return lines


def _in_registry(name: str) -> Callable[[], list[Line]]:
    return lambda: registered(getattr(import_module("beyonddrive.registry"), name))


KINDS: dict[str, Callable[[], list[Line]]] = {
    "planners": lambda: models("planners"),
    "heads": lambda: models("heads"),
    "losses": lambda: models("losses"),
    "parts": lambda: models("parts"),
    "configs": configs,
    "releases": published,
    "datasets": _in_registry("DATASETS"),
    "transforms": _in_registry("TRANSFORMS"),
    "metrics": _in_registry("METRICS"),
    "hooks": _in_registry("HOOKS"),
    "strategies": _in_registry("STRATEGIES"),
    "selectors": _in_registry("SELECTORS"),
    "plugins": plugins,
}
"""What can be listed; parts are what planners are built of besides heads and losses."""


def table(lines: Iterable[Line]) -> str:
    """Names in a column, and what they are.

    >>> print(table([('A', 'First.'), ('Bcd', 'Second.')]))
      A    First.
      Bcd  Second.
    """
    lines = list(lines)
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"  {name:<{width}}  {said}".rstrip() for name, said in lines)


def _kind(word: str) -> str:
    if word not in KINDS:
        raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(KINDS)}")
    return word


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("list", "Name what there is, one line each.")
    parser.add_argument("kinds", nargs="*", type=_kind, metavar="KIND", help=", ".join(KINDS))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the lists."""
    args = parse_args(argv)

    def work() -> int:
        for kind in args.kinds or KINDS:
            lines = KINDS[kind]()
            print(f"{kind} ({len(lines)})", table(lines), "", sep="\n")
        return 0

    return run_command("list", work)


if __name__ == "__main__":
    sys.exit(main())
