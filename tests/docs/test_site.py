"""What the site is made of: documents in another dialect, docstrings as Markdown, a page for everything."""

import re
from pathlib import Path

import griffe
import pytest

import beyonddrive
from beyonddrive import cli

ROOT = Path(beyonddrive.__path__[0])


@pytest.fixture
def tooling(monkeypatch):
    """The modules beside the documents, which are no part of the package."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    import dialect
    import docstrings
    import pages

    return {"dialect": dialect, "docstrings": docstrings, "pages": pages}


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("Text:\n- one\n- two\n", "Text:\n\n- one\n- two\n"),
        ("- one\n  - nested\n  1. other\n- two", "- one\n    - nested\n    1. other\n- two"),
        ("Text\n| a | b |\n| --- | ---: |\n| 1 | 2 |", "Text\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |"),
        ("| a |\n| --- |\n| 1 |\n<!-- end -->\nText", "| a |\n| --- |\n| 1 |\n\nText"),
        ("x (<!-- of a -->1<!-- end --> of\n<!-- of b -->3) `<!-- c -->`", "x (1 of\n3) `<!-- c -->`"),
        ("a <name> of `<name>`, <b>x</b>", "a &lt;name> of `<name>`, <b>x</b>"),
        ("```\nText:\n- <no> list\n```\n", "```\nText:\n- <no> list\n```\n"),
        ("- one\n\n- two\nlazy\n\nText\n- three", "- one\n\n- two\nlazy\n\nText\n\n- three"),
        ("Text\n\n    code - x\n    - code", "Text\n\n    code - x\n    - code"),
    ],
)
def test_dialect(tooling, written, wanted):
    assert tooling["dialect"].to_python_markdown(written) == wanted


def test_links_and_sections(tooling):
    dialect = tooling["dialect"]
    text = "[a](x.md#y) ![b](../p.png) [c](https://z.org)\n```\n[d](no.md)\n```\n"
    assert dialect.links(text) == ["x.md#y", "../p.png"]
    assert dialect.map_links(text, str.upper) == text.replace("x.md#y", "X.MD#Y").replace(
        "../p", "../P"
    ).replace(".png", ".PNG")
    page = "# A\n\n## One\n\nfirst\n\n### Sub\n\nsub\n\n## Two\n\nsecond\n"
    assert dialect.section(page, "One") == "first\n\n### Sub\n\nsub"
    assert dialect.section(page, "Two") == "second"
    with pytest.raises(KeyError, match="no heading 'Three'"):
        dialect.section(page, "Three")


def docstring_of(tooling, tmp_path, code, name="f"):
    """The docstring of ``beyonddrive.m.f`` as the site gets it."""
    (tmp_path / "beyonddrive").mkdir()
    (tmp_path / "beyonddrive" / "__init__.py").write_text("")
    (tmp_path / "beyonddrive" / "m.py").write_text(code)
    package = griffe.load(
        "beyonddrive",
        search_paths=[tmp_path],
        extensions=griffe.load_extensions(tooling["docstrings"].Docstrings),
    )
    return package["m"][name].docstring.value


def test_docstrings_become_markdown(tooling, tmp_path):
    code = '''
class Thing:
    """A thing."""

    def act(self):
        """Act."""

def f():
    """As :class:`Thing`, :meth:`~beyonddrive.m.Thing.act` or :func:`elsewhere` (METHOD, section 4).

    >>> f()
    1

    More.
    """
'''
    text = docstring_of(tooling, tmp_path, code)
    assert '<autoref identifier="beyonddrive.m.Thing" optional>`Thing`</autoref>' in text
    assert '<autoref identifier="beyonddrive.m.Thing.act" optional>`act`</autoref>' in text
    assert "or `elsewhere` ([METHOD, section 4](../specs/METHOD.md#4-repulsive-distance-loss-rde))" in text
    assert "\n```pycon\n>>> f()\n1\n```\n\nMore." in text


def test_values_stand_in_headings_if_they_are_short(tooling, tmp_path):
    table = f'SHORT = (1, 2)\nLONG = {list(range(40))}\ndef f():\n    """Nothing."""\n'
    docstring_of(tooling, tmp_path, table)
    extensions = griffe.load_extensions(tooling["docstrings"].Docstrings)
    module = griffe.load("beyonddrive", search_paths=[tmp_path], extensions=extensions)["m"]
    assert str(module["SHORT"].value) == "(1, 2)" and module["LONG"].value is None


def test_a_section_that_is_not_there_is_an_error(tooling, tmp_path):
    with pytest.raises(ValueError, match="METHOD, section 99, which"):
        docstring_of(tooling, tmp_path, 'def f():\n    """See METHOD, section 99."""\n')


def test_every_public_module_has_a_place(tooling):
    places = dict(tooling["pages"].packages())
    shown = set(places) | {module for modules in places.values() for module in modules}
    for name in ("apis", "heads.repulsive", "evaluation.pdm.scores.pdms", "plugins.wote.world_model"):
        assert f"beyonddrive.{name}" in shown
    assert not [m for m in shown if re.search(r"\._|^beyonddrive\.(setup|tools|tests|docs|configs)\b", m)]
    page = tooling["pages"].api_page("beyonddrive.losses", places["beyonddrive.losses"])
    assert "\n::: beyonddrive.losses.repulsive\n" in page
    assert "\n| [`imitation`][beyonddrive.losses.imitation] |" in page


def test_what_is_made_of_the_code(tooling):
    commands = tooling["pages"].commands_help()
    assert re.findall(r"^## (.*)$", commands, re.MULTILINE) == list(cli.VERBS)
    assert commands.count("```text\nusage: beyonddrive ") == len(cli.VERBS)
    assert "| `ltf_tiny_1xb16-12e_synth` |" in tooling["pages"].recipes_table()


def test_docstrings_describe_what_is_there(tooling, tmp_path, caplog):
    """As the build of the site asks, in a fraction of its time."""
    tooling["pages"].link_sources(tmp_path)
    extensions = griffe.load_extensions(tooling["docstrings"].Docstrings)
    package = griffe.load("beyonddrive", search_paths=[tmp_path], extensions=extensions)
    seen = 0
    for obj in tooling["docstrings"].walk(package):
        if obj.docstring and not obj.name.startswith("_"):
            seen += 1
            obj.docstring.parse("google")
    assert seen > 3000
    assert not [record.message for record in caplog.records if record.levelname == "WARNING"]
