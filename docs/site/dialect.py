"""From GitHub's Markdown, in which documents are written, to Python-Markdown, of which the site is made.

The first begins lists and tables right below a paragraph and nests lists by two spaces; the second does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

FENCE = re.compile(r" *(```+|~~~+)")
ITEM = re.compile(r"( *)(?:[-*+]|\d+\.) +\S")
SEPARATOR = re.compile(r"\|?[ :|-]*-[ :|-]*\|[ :|-]*$")
LINK = re.compile(r"(!?\[[^\]\n]*\])\(([^)\s]+)\)")
CODE_SPAN = re.compile(r"(`+)(?:(?!\1).)+?\1", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
"""At the beginning of a line it would be a paragraph of its own."""
PLACEHOLDER = re.compile(r"<(?=[a-z][a-z_ ]*>)(?!(?:a|autoref|b|br|div|figure|i|img|kbd|p|span|sub|sup)>)")
"""``<name>`` in prose, which a browser would take for an unknown element and hide."""


def prose_and_code(text: str) -> Iterator[tuple[bool, str]]:
    """Pieces of a page in order, ``(True, prose)`` and ``(False, fenced)``; together they are the page."""
    prose: list[str] = []
    fenced: list[str] = []
    mark = ""
    for line in text.splitlines(keepends=True):
        found = FENCE.match(line)
        if mark:
            fenced.append(line)
            if found and found[1].startswith(mark) and not line.strip(" `~\n"):
                yield False, "".join(fenced)
                fenced, mark = [], ""
        elif found:
            yield True, "".join(prose)
            prose, fenced, mark = [], [line], found[1]
        else:
            prose.append(line)
    yield True, "".join(prose)
    yield False, "".join(fenced)


def map_prose(text: str, change: Callable[[str], str]) -> str:
    """Change what is neither fenced code nor a code span."""

    def outside_spans(prose: str) -> str:
        parts, end = [], 0
        for span in CODE_SPAN.finditer(prose):
            parts += [change(prose[end : span.start()]), span[0]]
            end = span.end()
        return "".join([*parts, change(prose[end:])])

    return "".join(outside_spans(piece) if is_prose else piece for is_prose, piece in prose_and_code(text))


def map_links(text: str, change: Callable[[str], str]) -> str:
    """Change the targets of links and pictures that do not lead to other sites."""

    def replace(link: re.Match[str]) -> str:
        return (
            link[0] if "://" in link[2] or link[2].startswith("mailto:") else f"{link[1]}({change(link[2])})"
        )

    return "".join(LINK.sub(replace, p) if is_prose else p for is_prose, p in prose_and_code(text))


def links(text: str) -> list[str]:
    """Targets of links and pictures that do not lead to other sites."""
    found: list[str] = []
    map_links(text, lambda target: found.append(target) or target)  # type: ignore[func-returns-value]
    return found


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of its level.

    Raises:
        KeyError: If there is no such heading.
    """
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise KeyError(f"no heading {title!r}")
    return found[2].strip()


def _spaced(prose: str) -> str:
    """Blank lines before lists and tables, and nested items by four spaces."""
    lines, out, in_list = prose.split("\n"), [""], False
    for number, line in enumerate(lines):
        item = ITEM.match(line)
        after = lines[number + 1] if number + 1 < len(lines) else ""
        if item and len(item[1]) < 4:
            if not in_list and out[-1].strip():
                out.append("")
            if in_list and len(item[1]) > 1:
                line = " " * (4 - len(item[1])) + line
            in_list = True
        elif out[-1].strip() and "|" in line and SEPARATOR.match(after.strip()):
            out.append("")
        elif line.startswith("#") or (line.strip() and line[0] != " " and not out[-1].strip()):
            in_list = False
        out.append(line)
    return "\n".join(out[1:])


def to_python_markdown(text: str) -> str:
    """The same page for Python-Markdown."""
    text = map_prose(text, lambda prose: COMMENT.sub("", prose))
    spaced = "".join(_spaced(piece) if is_prose else piece for is_prose, piece in prose_and_code(text))
    return map_prose(spaced, lambda prose: PLACEHOLDER.sub("&lt;", prose))
