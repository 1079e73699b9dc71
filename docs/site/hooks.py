"""How the site is made of the documents, the READMEs and the code (events of MkDocs)."""

from __future__ import annotations

import posixpath
import re
from typing import Any

import dialect
import notebook
import pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pages.ROOT
INCLUDE = re.compile(r"^<!-- (README\.md): (.+) -->$", re.MULTILINE)
MADE = {"<!-- table of recipes -->": pages.recipes_table, "<!-- help of commands -->": pages.commands_help}
FILE_NAME = re.compile(r"\[`?[\w./]+\.md`?\]\(([^)\s]+)\)")
"""A link that shows the name of a document, as those in Markdown files do."""
REMOTE = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=\"https?:[^>]*>|<link\b[^>]*stylesheet[^>]*https?:[^>]*>"
)
SHOWN = {
    "Planners": ["plugins/*/README.md"],
    "Measured": ["results/README.md", "results/*/README.md"],
    "Project": ["CONTRIBUTING.md", "CHANGELOG.md", ".github/SECURITY.md"],
}
"""Documents that are elsewhere, by the section of the navigation that shows them."""
origins: dict[str, str] = {}
"""Page or file of the site -> the file of the repository that it shows."""


def on_startup(**_: Any) -> None:
    """Lay out the sources where mkdocstrings will look for them, which it does before any page is read."""
    pages.link_sources(ROOT / "build" / "api")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/, and what pages link to elsewhere in the repository."""
    nav: dict[str, list[Any]] = {title: entry for item in config.nav or [] for title, entry in item.items()}

    def add(uri: str, text: str, title: str, section: str) -> None:
        files.append(File.generated(config, uri, content=text))
        nav[section].append({title: uri})

    origins.clear()
    origins.update({file.src_uri: f"docs/{file.src_uri}" for file in files})
    for section, patterns in SHOWN.items():
        for path in (path for pattern in patterns for path in sorted(ROOT.glob(pattern))):
            name = path.parent.name if path.name == "README.md" else path.stem.lower()
            uri, text = f"{section.lower()}/{name}.md", path.read_text()
            origins[uri] = path.relative_to(ROOT).as_posix()
            add(uri, text, text.partition("\n")[0].lstrip("# "), section)
    for path in sorted((ROOT / "docs").glob("*.ipynb")):
        text, pictures = notebook.as_page(notebook.read(path), path.stem)
        for name, content in pictures.items():
            files.append(File.generated(config, name, content=content))
        text += f'\nThe notebook as a file: <a href="../{path.name}" download>{path.name}</a>.\n'
        origins[f"{path.stem}.md"] = f"docs/{path.name}"  # to which links of other documents lead
        add(f"{path.stem}.md", text, text.partition("\n")[0].lstrip("# "), "Start")
        nav["Start"].insert(1, nav["Start"].pop())
    rooms: dict[str, list[Any]] = {}
    for name, modules in pages.packages():
        short = name.removeprefix("beyonddrive.")
        uri, (room, _, rest) = f"api/{short}.md", short.partition(".")
        files.append(File.generated(config, uri, content=pages.api_page(name, modules)))
        rooms.setdefault(room, []).append({rest: uri} if rest else uri)
    nav["API"] += [{room: entries if len(entries) > 1 else entries[0]} for room, entries in rooms.items()]
    for file in list(files.documentation_pages()):
        if file.src_uri in origins:
            for target in dialect.links(_with_includes(file.content_string, file.src_uri)):
                path = _in_repository(file.src_uri, target)
                if path not in origins.values() and (ROOT / path).is_file():
                    origins[f"files/{path}"] = path
                    files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Include what is included, lead links to where things are on the site, and change the dialect."""
    uri = page.file.src_uri
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]
    if uri in origins:
        if not uri.startswith("specs/"):
            page.meta["search"] = {"boost": 4}  # before the many words of the reference
        markdown = FILE_NAME.sub(lambda link: _titled(link, uri), _with_includes(markdown, uri))
        markdown = dialect.map_links(markdown, lambda target: _on_site(uri, target))
        markdown = dialect.to_python_markdown(markdown)
    return markdown


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Refuse a page that would fetch something from elsewhere when it is read."""
    found = REMOTE.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri}: loads {found[0]} from elsewhere")
    return output


def _in_repository(uri: str, target: str) -> str:
    """Path in the repository that a link of a page means."""
    file = target.partition("#")[0]
    here = origins[uri]
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), file)) if file else here


def _on_site(uri: str, target: str) -> str:
    """The same link, from the page's place on the site to that of what it means."""
    path, _, anchor = target.partition("#")
    places = {origin: place for place, origin in origins.items()}
    place = places.get(_in_repository(uri, target))
    if not path or place is None:  # (a link to nothing stays, and a strict build names it)
        return target
    return posixpath.relpath(place, posixpath.dirname(uri) or ".") + (f"#{anchor}" if anchor else "")


def _titled(link: re.Match[str], uri: str) -> str:
    """The same link, with the title of the page that it leads to, which on the site is no file."""
    page, anchor = ROOT / _in_repository(uri, link[1]), link[1].partition("#")[2]
    if not page.is_file() or (anchor and link[1].startswith("#")):
        return link[0]
    title = page.read_text().partition("\n")[0].lstrip("# ").partition(":")[0]
    return f"[{title}]({link[1]})"


def _with_includes(markdown: str, uri: str) -> str:
    """Sections of the README, and what is made of the code, where a page asks for it."""
    up = posixpath.relpath(".", posixpath.dirname(origins[uri]))

    def included(found: re.Match[str]) -> str:
        text = dialect.section((ROOT / found[1]).read_text(), found[2])
        return dialect.map_links(text, lambda target: posixpath.join(up, target))

    markdown = INCLUDE.sub(included, markdown)
    for mark, make in MADE.items():
        markdown = markdown.replace(mark, make()) if mark in markdown else markdown
    return markdown
