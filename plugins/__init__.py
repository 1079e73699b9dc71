"""Planners, one folder each. Importing this package registers all of them.

A folder with a ``planner.py`` is found by itself, and so is its ``checkpoint.py``: adding a planner needs no
edit here.
"""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

for _module in iter_modules(__path__, prefix=f"{__name__}."):
    for _part in ("planner", "checkpoint"):
        if _module.ispkg and find_spec(f"{_module.name}.{_part}") is not None:
            import_module(f"{_module.name}.{_part}")
import_module(f"{__name__}.base.preprocessor")
