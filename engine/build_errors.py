"""What goes wrong while a part of a run is built, as one line that names the setting."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.logging import print_log

from beyonddrive.engine.config_values import ConfigError
from beyonddrive.registry import MODELS
from beyonddrive.structures.errors import BeyondDriveError

_KINDS = (
    *(TypeError, KeyError, IndexError, AttributeError, AssertionError, ValueError, ImportError),
    *(NotImplementedError, ZeroDivisionError),
)
_UNEXPECTED = re.compile(r"(?:([\w.]+?)(?:\.__init__)?\(\) )?got an unexpected keyword argument '(\w+)'")


@contextmanager
def building(key: str, node: Any) -> Iterator[None]:
    """Turn an error of a constructor into one that names the setting that it was built from.

    Errors of the suite say what to change and pass. The frames of others go to the log at level ``DEBUG``.

    Args:
        key: Dotted key of what is built.
        node: What the config has there.

    Raises:
        ConfigError: In place of an error such as a ``TypeError`` of a wrong argument.
    """
    try:
        yield
    except BeyondDriveError:
        raise
    except _KINDS as error:
        print_log(traceback.format_exc(), "current", logging.DEBUG)
        raise ConfigError(_explain(key, node, error)) from error


def build_planner(settings: Any) -> Any:
    """Build a planner outside of a runner from the ``model`` of a config.

    Raises:
        ConfigError: As :func:`building`, also of what torch refuses.
    """
    with building("model", settings):
        try:
            return MODELS.build(settings)
        except RuntimeError as error:  # such as of a negative size
            if isinstance(error, (BeyondDriveError, NotImplementedError)):
                raise
            raise ValueError(str(error)) from error


def _explain(key: str, node: Any, error: Exception) -> str:
    reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    reason = " ".join(reason.split()) or "it cannot be built"
    found = _UNEXPECTED.search(reason)
    if found is not None:
        places = list(_places(key, node, found[2]))
        if places:
            owner = found[1] or "what reads it"
            return f"{' or '.join(places)}: {owner} has no such setting"
    if isinstance(error, KeyError) and " " not in reason:
        return f"{key}: {reason!r} is not known"
    if not isinstance(error, (ValueError, AssertionError, ImportError)):
        reason = f"{type(error).__name__}: {reason}"
    return f"{key}: {reason}"


def _places(path: str, node: Any, name: str) -> Iterator[str]:
    """Keys in a node that end in ``name``, each with its value."""
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            yield from _places(f"{path}.{index}", item, name)
    elif isinstance(node, Mapping):
        for key, item in node.items():
            if key == name:
                yield f"{path}.{key}={item!r}"
            yield from _places(f"{path}.{key}", item, name)
