"""What the documents name is there: files, headings, verbs and their options."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from beyonddrive import cli
from beyonddrive.engine.config_check import check_config
from beyonddrive.engine.configs import load_config

ROOT = Path(__file__).parents[1]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "plugins/*/*.md", "results/**/*.md", ".github/SECURITY.md")
    for path in sorted(ROOT.glob(pattern))
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```.*?^```$|^    beyonddrive .*?[^\\\\]$", re.DOTALL | re.MULTILINE)
"""Fenced code, and an indented command with its continued lines."""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


@cache
def headings(page):
    """Anchors of a page, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder, broken = (ROOT / page).parent, []
    for link in LINK.findall((ROOT / page).read_text()):
        if "://" in link or link.startswith("mailto:"):
            continue
        file, _, anchor = link.partition("#")
        target = (folder / file).resolve() if file else ROOT / page
        if not target.exists() or (anchor and anchor not in headings(target.relative_to(ROOT).as_posix())):
            broken.append(link)
    assert not broken


def commands(page):
    """Verb and the words after it of every ``beyonddrive VERB ...`` in the code of a page."""
    text = (ROOT / page).read_text()
    spans = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    for line in (*spans, *lines):
        for words in re.findall(r"(?<![\w./:-])beyonddrive ((?:(?! beyonddrive | # ).)+)", line):
            verb, _, rest = words.strip().partition(" ")
            if verb[:1].isalpha():
                yield verb, rest


@cache
def help_of(*words):
    """What a command prints of its options."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    return text.getvalue()


def test_commands_are_verbs_with_options_that_they_have():
    wrong, verbs = [], set()
    for page in PAGES:
        for verb, rest in commands(page):
            if verb not in cli.VERBS and verb != "VERB":
                wrong.append(f"{page}: beyonddrive {verb}")
                continue
            verbs.add(verb)
            known = help_of(verb) if verb != "VERB" else ""
            first = rest.split(" ")[0]
            if re.search(rf"[{{,]{re.escape(first)}[,}}]", known) and first:
                known += help_of(verb, first)
            options = set(OPTION.findall(rest)) - {"--help", "--version"}
            wrong += [
                f"{page}: beyonddrive {verb} {option}"
                for option in sorted(options)
                if not re.search(rf"(?<![\w-]){option}(?![\w-])", known)
            ]
    assert not wrong
    assert verbs >= set(cli.VERBS), f"no document shows {sorted(set(cli.VERBS) - verbs)}"


@pytest.mark.parametrize("page", PAGES)
def test_scripts_that_are_called_are_there(page):
    text = (ROOT / page).read_text()
    called = re.findall(r"(?<![\w/.-])((?:benchmarks|tools|results)/[\w/]+\.(?:py|sh))", text)
    assert not [name for name in called if not (ROOT / name).is_file()]


LINES = {
    (page, line)
    for page in PAGES
    for line in re.findall(r"`((?:default_hooks|visualizer) = dict\([^`]*\))`", (ROOT / page).read_text())
}


@pytest.mark.parametrize(("page", "line"), sorted(LINES))
def test_lines_of_config_are_taken_and_keep_figures_and_config_in_the_work_folder(page, line, tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(f'_base_ = "beyonddrive::ltf/ltf_tiny_1xb16-12e_synth.py"\n{line}\n')
    config = load_config(recipe)
    check_config(config)
    backends = [backend["type"] for backend in config.visualizer.vis_backends]
    assert len(backends) == len(set(backends)) and "LocalVisBackend" in backends
    assert config.default_hooks.pictures.optional


class _Navigation(yaml.SafeLoader):
    """Reads mkdocs.yml, which names functions, without looking for them."""


_Navigation.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def _named(entry):
    """Files that an entry of a navigation names."""
    if isinstance(entry, str):
        return {entry}
    return {name for part in (entry.values() if isinstance(entry, dict) else entry) for name in _named(part)}


def test_the_site_has_a_place_for_every_document():
    navigation = yaml.load((ROOT / "mkdocs.yml").read_text(), _Navigation)["nav"]
    documents = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert _named(navigation) == documents - {"site/README.md"}, "see nav in mkdocs.yml"
