"""Notebooks: run in one process, with their outputs kept, and shown as pages (nbformat 4).

``python docs/site/notebook.py docs/first_planner.ipynb`` runs one where it is and writes its outputs anew.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]


def read(path: Path) -> Notebook:
    """A notebook as its file has it."""
    notebook: Notebook = json.loads(path.read_text())
    return notebook


def run(notebook: Notebook, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run the cells of code in order, in the current folder, and keep what each prints and shows.

    Args:
        notebook: Whose ``outputs`` are replaced.
        parameters: Names that are given other values after the cell with the tag ``parameters``.

    Returns:
        The names that the cells have left.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for count, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            shown = _run_cell("".join(cell["source"]), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            names.update(parameters or {})
        cell["execution_count"], cell["outputs"] = count, []
        if printed.getvalue():
            lines = printed.getvalue().splitlines(keepends=True)
            cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": lines})
        if shown is not None:
            cell["outputs"].append(
                {
                    "output_type": "execute_result",
                    "execution_count": count,
                    "metadata": {},
                    "data": _data(shown),
                }
            )
    return names


def _run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    exec(compile(tree, "<cell>", "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)  # noqa: S307


def _data(shown: Any) -> dict[str, Any]:
    """What a notebook shows of a value: its picture, if it has one."""
    if hasattr(shown, "_repr_png_"):
        size = "x".join(map(str, getattr(shown, "size", ())))
        return {"image/png": base64.b64encode(shown._repr_png_()).decode(), "text/plain": [f"picture {size}"]}
    return {"text/plain": repr(shown).splitlines(keepends=True)}


def as_page(notebook: Notebook, name: str) -> tuple[str, dict[str, bytes]]:
    """Markdown of a notebook, and its pictures by the names of files that the page shows."""
    blocks: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        blocks.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", ())})
            if "image/png" in data:
                file = f"{name}-{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode(data["image/png"])
                blocks.append(f"![Output of the cell above]({file})")
            else:
                blocks.append('```text title="Output"\n' + "".join(data["text/plain"]).rstrip() + "\n```")
    return "\n\n".join(blocks) + "\n", pictures


def main(path: Path) -> None:
    """Run a notebook and write it with its outputs."""
    notebook = read(path)
    run(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
