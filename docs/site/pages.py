"""What follows from the code: reference of every public module, help of commands, table of recipes."""

from __future__ import annotations

import ast
import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {"benchmarks", "configs", "tests", "tools"}
"""Packages that are no interface of Python; the tools are described by their commands."""


def rooms() -> list[Path]:
    """What stands at the top of the package: modules and folders of modules."""
    folders = [p.parent for p in ROOT.glob("*/__init__.py") if p.parent.name not in OUTSIDE]
    modules = [p for p in ROOT.glob("*.py") if p.name not in ("setup.py", "__main__.py", "__init__.py")]
    return sorted([*folders, *modules])


def link_sources(folder: Path) -> None:
    """Make ``folder/beyonddrive``, links to the rooms alone.

    The import package is the root of the repository, in which a reader of sources would also walk through
    environments, caches and data.
    """
    package = folder / "beyonddrive"
    package.mkdir(parents=True, exist_ok=True)
    for link in package.iterdir():
        link.unlink()
    for source in [ROOT / "__init__.py", *rooms()]:
        (package / source.name).symlink_to(source)


def packages() -> Iterator[tuple[str, list[str]]]:
    """Each public package, by its dotted name, with its public modules; the root comes first."""

    def public(path: Path) -> bool:
        return not any(part.startswith("_") for part in path.relative_to(ROOT).with_suffix("").parts)

    def dotted(path: Path) -> str:
        return ".".join(("beyonddrive", *path.relative_to(ROOT).with_suffix("").parts))

    yield "beyonddrive", [dotted(path) for path in rooms() if path.suffix == ".py" and public(path)]
    for room in (path for path in rooms() if path.is_dir()):
        for init in sorted(room.rglob("__init__.py")):
            modules = sorted(path for path in init.parent.glob("*.py") if public(path))
            if public(init.parent):
                yield dotted(init.parent), [dotted(path) for path in modules]


def _source(name: str) -> Path:
    path = ROOT.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _first_line(name: str) -> str:
    return (ast.get_docstring(ast.parse(_source(name).read_text())) or "").partition("\n")[0]


def _exports(name: str) -> list[tuple[str, str]]:
    """What a package offers by itself, in ``__all__``: (name, where it is defined), without modules."""
    tree = ast.parse(_source(name).read_text())
    offered = {
        text
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for text in ast.literal_eval(node.value)
    }
    return sorted(
        (alias.name, f"{node.module}.{alias.name}")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.name in offered and not _source(f"{node.module}.{alias.name}").exists()
    )


def api_page(name: str, modules: list[str]) -> str:
    """Reference of a package: what it is, its modules in a table, then each of them."""
    lines = [f"# {name.removeprefix('beyonddrive.')}", "", f"::: {name}"]
    lines += ["    options: {members: false, show_root_heading: false, show_root_toc_entry: false}", ""]
    exports = _exports(name)
    if exports:
        link = '<autoref identifier="{}" optional>`{}`</autoref>'.format
        names = ", ".join(link(full, short) for short, full in exports)
        lines += [f"`from {name} import` {names}", ""]
    if len(modules) > 1:
        lines += ["| module | |", "| --- | --- |"]
        lines += [
            f"| [`{m.rpartition('.')[2]}`][{m}] | {_first_line(m)} |".replace("``", "`") for m in modules
        ]
        lines += [""]
    for module in modules:
        lines += [f"::: {module}", ""]
    return "\n".join(lines)


def commands_help() -> str:
    """What every command prints about itself."""
    from beyonddrive import cli

    lines = []
    os.environ["COLUMNS"] = "96"  # argparse asks nothing else how wide a line may be
    for verb, (_, about) in cli.VERBS.items():
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            cli.main([verb, "--help"])
        lines += [
            f"## {verb}",
            "",
            f"{about[0].upper()}{about[1:]}.",
            "",
            "```text",
            text.getvalue().strip(),
            "```",
            "",
        ]
    return "\n".join(lines)


def recipes_table() -> str:
    """Configs of the suite by name, with what each is."""
    from beyonddrive.tools.list import configs

    rows = [f"| `{name}` | {about} |" for name, about in configs()]
    return "\n".join(["| config | |", "| --- | --- |", *rows])
