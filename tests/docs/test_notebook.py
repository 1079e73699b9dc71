"""The notebook runs from its first cell to its last, and what it keeps is shown as a page."""

from pathlib import Path

import pytest

import beyonddrive

ROOT = Path(beyonddrive.__path__[0])
NOTEBOOK = ROOT / "docs" / "first_planner.ipynb"


@pytest.fixture
def tool(monkeypatch):
    """The module that runs and shows notebooks."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    import notebook

    return notebook


def outputs_of(notebook):
    """Kinds of outputs of each cell of code."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [
        sorted({kind for o in cell["outputs"] for kind in o.get("data", {"stream": ""})}) for cell in code
    ]


@pytest.mark.slow
def test_the_notebook_runs(tool, tmp_path, monkeypatch):
    pytest.importorskip("libsumo")
    monkeypatch.chdir(tmp_path)
    notebook = tool.read(NOTEBOOK)
    kept = outputs_of(notebook)
    names = tool.run(notebook, {"splits": "train:16,val:1,test:2", "epochs": 1})
    assert len(names["scenes"]) == len(names["pdms"]) == 2
    assert all(plan.shape == (8, 3) for plan in names["plans"].values())
    assert names["picture"].width == 1100
    assert outputs_of(notebook) == kept, "run docs/site/notebook.py again"


def test_the_notebook_is_a_page_with_its_pictures(tool):
    text, pictures = tool.as_page(tool.read(NOTEBOOK), "first_planner")
    assert list(pictures) == ["first_planner-1.png", "first_planner-2.png"]
    assert all(data.startswith(b"\x89PNG") for data in pictures.values())
    assert all(f"({name})" in text for name in pictures)
    assert "PDMS: human " in text and 'splits = "train:' in text
    assert text.startswith("# A first planner")


def test_what_is_printed_and_shown_is_kept(tool):
    cells = ["x = 1", "print(x)\nx + 1", "print(x)", "y = x"]
    notebook = {"cells": [{"cell_type": "code", "metadata": {}, "source": [cell]} for cell in cells]}
    notebook["cells"][0]["metadata"] = {"tags": ["parameters"]}
    assert tool.run(notebook, {"x": 5})["y"] == 5
    assert outputs_of(notebook) == [[], ["stream", "text/plain"], ["stream"], []]
    assert notebook["cells"][1]["outputs"][1]["data"]["text/plain"] == ["6"]
