"""Docstrings as Markdown for mkdocstrings, an extension of Griffe: roles, doctests, references to specs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffe import Attribute, Class, Extension, Module, Object
from pymdownx.slugs import slugify

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([\w.]+)`")
DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", re.MULTILINE)
SPECS = Path(__file__).resolve().parents[1] / "specs"
SECTION = re.compile(r"\b([A-Z][A-Z0-9_]+), (sections?) (\d+(?:\.\d+)?)")

LONGEST_VALUE = 80
"""Characters; the value of a constant stands in its heading, for which more is too much."""


class Docstrings(Extension):
    """Rewrites every docstring once the whole package is read, when names can be resolved."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Rewrite the docstrings of a package."""
        paths = defaultdict(set)
        objects = list(walk(pkg))
        for obj in objects:
            paths[obj.name].add(obj.path)
        for obj in objects:
            if isinstance(obj, Attribute) and len(str(obj.value)) > LONGEST_VALUE:
                obj.value = None
            if obj.docstring:
                text = ROLE.sub(lambda role, obj=obj: _link(role, obj, paths), obj.docstring.value)  # type: ignore[misc]
                text = DOCTEST.sub(_fence, text)
                obj.docstring.value = SECTION.sub(_spec, text)


def walk(obj: Object) -> Iterator[Object]:
    """An object and all within it that is defined there."""
    yield obj
    for member in obj.members.values():
        if isinstance(member, Object):
            yield from walk(member)


def _link(role: re.Match[str], obj: Object, paths: dict[str, set[str]]) -> str:
    """A Sphinx reference as one of mkdocstrings: in the scope of the docstring, else what has its name."""
    name = role[2]
    shown = name.rpartition(".")[2] if role[1] else name.removeprefix("beyonddrive.")
    scope: Object | None = obj
    found = {name} if name.startswith("beyonddrive.") else set()
    while scope is not None and not found:
        found = paths.get(name.rpartition(".")[2], set()) & {f"{scope.path}.{name}"}
        if isinstance(scope, Class) and not found:
            found = {f"{base.path}.{name}" for base in scope.mro() if name in base.members}
        scope = scope.parent
    found = found or {path for path in paths.get(name.rpartition(".")[2], set()) if path.endswith(f".{name}")}
    if len(found) != 1:
        return f"`{shown}`"
    return f'<autoref identifier="{found.pop()}" optional>`{shown}`</autoref>'


def _fence(block: re.Match[str]) -> str:
    """A doctest as a block of code."""
    return f"{block[1]}```pycon\n{block[0]}\n{block[1]}```"


def _spec(reference: re.Match[str]) -> str:
    """A reference to a section of a specification, such as ``METHOD, section 4``, as a link.

    Pages of the reference are all in one folder beside that of the specifications.

    Raises:
        ValueError: If that page has no such section.
    """
    page, word, number = reference.groups()
    file = SPECS / f"{page}.md"
    if not file.is_file():
        return reference[0]
    heading = re.search(rf"^#+ ({re.escape(number)}\.? .*)$", file.read_text(), re.MULTILINE)
    if heading is None:
        raise ValueError(f"a docstring names {reference[0]}, which {file.name} has not")
    return f"[{page}, {word} {number}](../specs/{page}.md#{slugify(case='lower')(heading[1], '-')})"
