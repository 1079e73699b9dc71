"""Find the packages; setup.cfg has all the rest, but cannot say that the root is a package.

``heads/repulsive.py`` is ``beyonddrive.heads.repulsive``.
"""

from setuptools import find_packages, setup

OUTSIDE = ("tests", "docs", "benchmarks", "results", "build", "dist")
"""Folders of the checkout that are not part of the package."""
_excluded = [pattern for name in OUTSIDE for pattern in (name, f"{name}.*")]

setup(
    package_dir={"beyonddrive": "."},
    packages=["beyonddrive", *(f"beyonddrive.{name}" for name in find_packages(exclude=_excluded))],
)
