import importlib.util
import sys
from pathlib import Path

import pytest


def load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def doubles():
    """The generator, scenes and scorer of ``mining_doubles.py``, by the names a script beside it uses."""
    load("scoring_doubles")
    return load("mining_doubles")
