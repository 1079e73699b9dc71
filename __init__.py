"""End-to-end driving planners that learn from hard negatives, and a native PDM score.

Importing this package is cheap and has no side effects: neither torch nor mmengine is imported until a
module that needs them is. Components are found by name through :mod:`beyonddrive.registry`.
"""

from beyonddrive.version import __version__

__all__ = ["__version__"]
