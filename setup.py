"""Find the packages; setup.cfg has all the rest, but cannot say that the root is a package.

``heads/repulsive.py`` is ``beyonddrive.heads.repulsive``.
"""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

OUTSIDE = ("tests", "docs", "benchmarks", "results", "build", "dist")
"""Folders of the checkout that are not part of the package."""
_excluded = [pattern for name in OUTSIDE for pattern in (name, f"{name}.*")]


class BuildWithoutSetup(build_py):
    """Leaves this file out, which lies in the package's folder but is not part of it."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Modules of a package, without this one."""
        modules: list[tuple[str, str, str]] = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[:2] != ("beyonddrive", "setup")]


setup(
    cmdclass={"build_py": BuildWithoutSetup},
    package_dir={"beyonddrive": "."},
    packages=["beyonddrive", *(f"beyonddrive.{name}" for name in find_packages(exclude=_excluded))],
)
