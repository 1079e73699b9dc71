import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def doubles():
    """The module of doubles, which is also the script that other processes run."""
    path = Path(__file__).with_name("mining_doubles.py")
    spec = importlib.util.spec_from_file_location("mining_doubles", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mining_doubles"] = module
    spec.loader.exec_module(module)
    return module
