"""The version of the package, in one place for setup.cfg, manifests and reports."""

__version__ = "0.2.0"
