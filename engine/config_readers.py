"""Who reads a node of a config, and which keys it takes: signatures, found through the registries."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import (
    EVALUATOR,
    FUNCTIONS,
    LOG_PROCESSORS,
    MODEL_WRAPPERS,
    WEIGHT_INITIALIZERS,
    DefaultScope,
    Registry,
)
from mmengine.utils import ManagerMixin
from torch import nn

from beyonddrive import registry as own

FALLBACKS = (
    *(own.MODELS, own.DATASETS, own.TRANSFORMS, own.METRICS, own.HOOKS, own.STRATEGIES, own.SELECTORS),
    *(own.OPTIMIZERS, own.OPTIM_WRAPPERS, own.PARAM_SCHEDULERS, own.LOOPS, own.DATA_SAMPLERS),
    *(own.OPTIM_WRAPPER_CONSTRUCTORS, own.VISUALIZERS, own.VISBACKENDS),
    *(FUNCTIONS, EVALUATOR, LOG_PROCESSORS, MODEL_WRAPPERS, WEIGHT_INITIALIZERS),
)
"""Where the type of a nested node is looked for."""


_OURS = "beyonddrive."


class Reader(NamedTuple):
    """What takes the keys of a node.

    Attributes:
        name: Its name, for messages.
        keys: Annotation of each key that it takes; None where there is none.
        takes_any: Whether it may take others too; not a class with ``refuses_other_keys = True``.
        parts: Keys of those arguments that are mappings without a ``type``, or the class that then reads it,
            by argument. A class names them in its attribute ``config_parts``.
        taken: Keys that it takes out of an argument itself, before a class that its ``type`` names gets the
            rest, by argument: the attribute ``config_taken``.
    """

    name: str
    keys: Mapping[str, Any]
    takes_any: bool = False
    parts: Mapping[str, Collection[str] | type] = {}
    taken: Mapping[str, Collection[str]] = {}

    def part_keys(self, key: str) -> Collection[str]:
        """Keys of one of the :attr:`parts`; none if the argument is no part."""
        part = self.parts.get(key, ())
        return reader_of(part).keys if isinstance(part, type) else part


def find(name: Any, registry: Registry | None) -> Any:
    """Class or function that the ``type`` of a node names; None if there is none."""
    if isinstance(name, (LazyObject, LazyAttr)):  # of mmengine's pure-Python style
        return name.build()
    if not isinstance(name, str):
        return name
    current = DefaultScope.get_current_instance()
    names = [name] if current is None or "." in name else [name, f"{current.scope_name}.{name}"]
    for place in (registry,) if registry is not None else FALLBACKS:
        for one in names:
            with suppress(RuntimeError):  # some versions of mmengine raise where others return None
                if (found := place.get(one)) is not None:
                    return found
    return None


def names_in(registry: Registry | None) -> set[str]:
    """All names that a registry and its parents know."""
    known: set[str] = set()
    places = [registry] if registry is not None else list(FALLBACKS)
    for place in places:
        current: Registry | None = place
        while current is not None:
            current.import_from_location()
            known |= set(current.module_dict)
            current = current.parent
    return known


@functools.cache
def reader_of(target: Any) -> Reader:
    """Keys that a class or function takes; ``**kwargs`` are followed to where it hands them on."""
    keys: dict[str, Any] = {}
    takes_any = _collect(target, keys) and not getattr(target, "refuses_other_keys", False)
    if inspect.isclass(target) and issubclass(target, ManagerMixin):
        keys.setdefault("name", str)
    name = getattr(target, "__name__", type(target).__name__)
    parts, taken = (getattr(target, which, {}) for which in ("config_parts", "config_taken"))
    return Reader(name, keys, takes_any, parts, taken)


@functools.cache
def argument_is_ours(target: Any, key: str) -> bool:
    """Whether a class or function of the suite takes an argument, be it for one derived from it."""
    for cls in getattr(target, "__mro__", ()):
        function = inspect.unwrap(vars(cls).get("__init__", object.__init__))
        if function is not object.__init__ and key in inspect.signature(function).parameters:
            return cls.__module__.startswith(_OURS)
    return str(getattr(target, "__module__", "")).startswith(_OURS)


def _collect(target: Any, keys: dict[str, Any]) -> bool:
    """Add the keys of a callable; return whether it may take others too."""
    if not inspect.isclass(target):
        return _collect_function(target, keys, iter(()))
    return _collect_next(iter(target.__mro__), keys)


def _collect_next(classes: Iterator[type], keys: dict[str, Any]) -> bool:
    """Add the keys of the first of these classes that has a constructor of its own."""
    for cls in classes:
        if cls in (object, nn.Module):  # both refuse what they do not know
            return False
        if "__init__" in vars(cls):
            return _collect_function(vars(cls)["__init__"], keys, classes)
    return False


def _collect_function(function: Any, keys: dict[str, Any], bases: Iterator[type]) -> bool:
    function = inspect.unwrap(function)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C
        return True
    rest = None
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            rest = parameter.name
        elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name != "self":
            keys.setdefault(parameter.name, _annotation(parameter.annotation, function))
    return rest is not None and _follow(function, rest, keys, bases)


def _annotation(annotation: Any, function: Callable[..., Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return None
    if not isinstance(annotation, str):
        return annotation
    holder = type("Holder", (), {"__annotations__": {"it": annotation}})
    try:
        return typing.get_type_hints(holder, vars(sys.modules[function.__module__]))["it"]
    except Exception:  # a name that exists for type checkers alone
        return None


def _follow(function: Any, rest: str, keys: dict[str, Any], bases: Iterator[type]) -> bool:
    """Add the keys that a function reads from its ``**rest``, or hands on to others."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return True
    takers = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if any(word.arg is None and _is_name(word.value, rest) for word in node.keywords):
                takers.append(node.func)
            is_read = isinstance(node.func, ast.Attribute) and node.func.attr in ("pop", "get", "setdefault")
            if is_read and _is_name(node.func.value, rest) and node.args:  # type: ignore[attr-defined]
                _add_constant(node.args[0], keys)
        elif isinstance(node, ast.Subscript) and _is_name(node.value, rest):
            _add_constant(node.slice, keys)
    if not takers:
        return True
    takes_any = False
    remaining = list(bases)
    for taker in takers:
        if ast.unparse(taker) == "super().__init__":
            takes_any |= _collect_next(iter(remaining), keys)
        else:
            known = getattr(sys.modules.get(function.__module__), ast.unparse(taker), None)
            takes_any |= known is None or _collect(known, keys)
    return takes_any


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _add_constant(node: ast.expr, keys: dict[str, Any]) -> None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        keys.setdefault(node.value, None)
