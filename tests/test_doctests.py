"""Examples in docstrings run and show what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import beyonddrive

ROOT = Path(beyonddrive.__path__[0])
NOT_SHIPPED = {"tests", "docs", "benchmarks", "configs", "build"}


def _files_with_examples():
    rooms = [d for d in ROOT.iterdir() if d.is_dir() and d.name.isidentifier() and d.name not in NOT_SHIPPED]
    files = [*ROOT.glob("*.py"), *(path for room in rooms for path in room.rglob("*.py"))]
    return sorted(path for path in files if ">>> " in path.read_text())


@pytest.mark.parametrize("path", _files_with_examples(), ids=lambda p: str(p.relative_to(ROOT)))
def test_examples(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(["beyonddrive", *(p for p in parts if p != "__init__")])
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0
