"""The plan of the house: who may import whom, also through a registry or a string, and no circles."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import networkx
import pytest

import beyonddrive
from beyonddrive import registry

ROOT = Path(beyonddrive.__path__[0]).resolve()
# Folders of the checkout that are not part of the package, and configs, which only name things.
OUTSIDE = {
    "tests",
    "docs",
    "benchmarks",
    "results",
    "build",
    "dist",
    "configs",
    "data",
    "work_dirs",
    "wheels",
    "setup.py",
}

BELOW = {
    "registry",
    "openmmlab",
    "version",
    "structures",
    "structures.agent_boxes",
    "structures.errors",
    "engine",
}
PARTS = {"losses", "backbones", "heads"}
# Room -> what it may use besides itself; the longest name that fits a module is its room.
ALLOWED = {
    "registry": {"openmmlab"},
    "openmmlab": {"structures.agent_boxes", "structures.errors"},
    "version": set(),
    "structures.errors": set(),
    "structures.agent_boxes": set(),
    "structures": {"registry", "structures.agent_boxes", "structures.errors"},
    "engine": BELOW,
    "losses": BELOW,
    "backbones": BELOW,
    "heads": BELOW | {"losses"},
    "checkpoints": BELOW,
    "plugins.base": BELOW | PARTS,
    "plugins": BELOW | PARTS | {"checkpoints", "plugins.base"},
    "deploy": BELOW | PARTS | {"plugins.base"},
    "deploy.drivers": BELOW | {"plugins.base", "deploy", "datasets", "evaluation"},
    "datasets": BELOW,
    "synth": BELOW | {"datasets"},
    "synth.live": BELOW | {"datasets", "synth", "evaluation", "evaluation.pdm"},
    "evaluation.pdm": BELOW | {"datasets"},
    "evaluation": BELOW | {"datasets", "evaluation.pdm"},
    "generators": BELOW | {"datasets", "evaluation", "evaluation.pdm"},
    "visualization": BELOW | {"datasets", "evaluation", "evaluation.pdm"},
    "apis": None,  # everything
    "cli": None,
    "__main__": None,
    "tools": None,
}
# Asked for what a config or a user names; what code itself names is checked by name.
BY_CONFIG = {"MODELS"}


@cache
def _files() -> list[Path]:
    tops = [path for path in ROOT.iterdir() if path.name not in OUTSIDE and not path.name.startswith(".")]
    inside = [file for top in tops if top.is_dir() for file in top.rglob("*.py")]
    return sorted([*inside, *(path for path in tops if path.suffix == ".py")])


def _name(path: Path) -> str:
    """Module name without ``beyonddrive``; empty for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _trees() -> Mapping[str, ast.Module]:
    return {_name(path): ast.parse(path.read_text()) for path in _files()}


@cache
def _packages() -> set[str]:
    return {_name(path) for path in _files() if path.name == "__init__.py"}


def _targets(node: ast.AST) -> Iterable[str]:
    """Full names that an import statement may bring in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        assert node.level == 0, "relative import"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _own(name: str) -> str | None:
    """The module of ours that a dotted name is, or is in."""
    if name != "beyonddrive" and not name.startswith("beyonddrive."):
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in _trees():
        parts.pop()
    return ".".join(parts)


@cache
def _imports() -> Mapping[str, set[str]]:
    """Module -> modules it imports anywhere in it: at its top, in functions, for type checkers."""
    found = {}
    for name, tree in _trees().items():
        targets = {_own(target) for node in ast.walk(tree) for target in _targets(node)}
        found[name] = {target for target in targets if target} - {name}
    return found


def _docstrings(tree: ast.Module) -> set[int]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    statements = [s for node in ast.walk(tree) if isinstance(node, holders) for s in node.body]
    return {id(s.value) for s in statements if isinstance(s, ast.Expr)}


@cache
def _registered() -> Mapping[str, str]:
    """Name of a registered component -> module that defines it."""
    found = {}
    for module, tree in _trees().items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(
                        ".register_module"
                    ):
                        found[node.name] = module
    return found


@cache
def _named() -> Mapping[str, set[tuple[str, str]]]:
    """Module -> (string, module): components and modules that its code names in strings."""
    found: dict[str, set[tuple[str, str]]] = {}
    for module, tree in _trees().items():
        prose, names = _docstrings(tree), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                if node.value in _registered():
                    names.add((node.value, _registered()[node.value]))
                elif (target := _own(node.value)) and " " not in node.value:
                    names.add((node.value, target))
        if module != "registry":  # which is the list of all doors
            found[module] = {(text, target) for text, target in names if target != module}
    return found


def _looked_up(module: str) -> set[str]:
    """Registries that a module builds or gets components from."""
    calls = [node.func for node in ast.walk(_trees()[module]) if isinstance(node, ast.Call)]
    return {
        call.value.id
        for call in calls
        if isinstance(call, ast.Attribute)
        and call.attr in ("build", "get")
        and isinstance(call.value, ast.Name)
        and f"registry.{call.value.id}" in {f"registry.{name}" for name in vars(registry)}
        and any(
            f"beyonddrive.registry.{call.value.id}" in _targets(node) for node in ast.walk(_trees()[module])
        )
    }


def _room(module: str) -> str:
    return max(
        (room for room in ALLOWED if module == room or module.startswith(f"{room}.")), key=len, default=""
    )


def _may_use(module: str, target: str) -> bool:
    room, other = _room(module), _room(target)
    allowed = ALLOWED.get(room)
    if not room or allowed is None or other in allowed:
        return True
    if room == other == "plugins":  # a planner's folder is its own
        folders = [name.split(".")[1:2] for name in (module, target)]
        return module == "plugins" or folders[0] == folders[1]
    return room == other


def _circles(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    graph = networkx.DiGraph(edge for edge in edges if edge[0] != edge[1])
    return sorted(sorted(c) for c in networkx.strongly_connected_components(graph) if len(c) > 1)


def test_every_folder_of_modules_is_a_package():
    """A folder without ``__init__.py`` works in a checkout and is missing from the wheel."""
    assert not {path.parent for path in _files() if not (path.parent / "__init__.py").exists()}


def test_every_module_has_a_room():
    assert not [module for module in _trees() if module and not _room(module)]


def test_rooms_use_only_the_rooms_below():
    wrong = {
        f"{module} -> {target}"
        for module, targets in _imports().items()
        for target in targets
        if not _may_use(module, target)
    }
    assert not wrong


def test_strings_name_only_what_may_be_imported():
    wrong = {
        f"{module} names {text!r} of {target}"
        for module, targets in _named().items()
        for text, target in targets
        if not _may_use(module, target)
    }
    assert not wrong


def test_registries_lead_only_to_rooms_that_may_be_imported():
    wrong = {
        f"{module} -> {name} -> {location}"
        for module in _trees()
        for name in _looked_up(module) - BY_CONFIG
        for location in getattr(registry, name)._locations
        if not _may_use(module, location.removeprefix("beyonddrive."))
    }
    assert not wrong


def test_no_circle_of_modules():
    edges = [(module, target) for module, targets in _imports().items() for target in targets]
    edges += [(module, target) for module, targets in _named().items() for _, target in targets]
    # (a package's __init__ gathers its modules; importing one of them runs it, which is no circle of ours)
    gathering = _packages()
    assert not _circles((a, b) for a, b in edges if b not in gathering)


def test_no_circle_of_packages():
    def package(module: str) -> str:
        if module in _packages() or "." not in module:
            return module
        return module.rpartition(".")[0]

    edges = [(module, target) for module, targets in _imports().items() for target in targets]
    edges += [(module, target) for module, targets in _named().items() for _, target in targets]
    edges += [
        (module, location.removeprefix("beyonddrive."))
        for module in _trees()
        for name in _looked_up(module) - BY_CONFIG
        for location in getattr(registry, name)._locations
    ]
    # (the root holds single modules: each is a package of its own here)
    assert not _circles((package(a), package(b)) for a, b in edges if a and b)


def test_every_registry_location_is_a_module():
    registries = [
        r for r in vars(registry).values() if isinstance(r, registry.Registry) and r.scope == registry.SCOPE
    ]
    missing = [
        location
        for r in registries
        for location in r._locations
        if location.removeprefix("beyonddrive.") not in _trees()
    ]
    assert len(registries) > 10 and not missing


def test_private_torch_operators_are_used_in_one_place():
    marks = ("torch.ops.mkldnn", "torch._C", "mkldnn_reorder", "to_mkldnn")
    users = {
        module
        for module, tree in _trees().items()
        if any(mark in ast.unparse(tree) for mark in marks) and not module.startswith("deploy.cpu")
    }
    assert not users


def test_every_error_has_the_common_base():
    bases = {
        node.name: [ast.unparse(base) for base in node.bases]
        for tree in _trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.name != "BeyondDriveError"
    }
    assert len(bases) > 30
    assert not [
        name for name, of in bases.items() if not any(b == "BeyondDriveError" or b in bases for b in of)
    ]


#: Modules that data workers and other codebases use without a deep-learning framework.
LIGHT = (
    "beyonddrive.evaluation.pdm",
    "beyonddrive.evaluation.service",
    "beyonddrive.evaluation.split_scoring",
    "beyonddrive.datasets.navsim.root",
    "beyonddrive.datasets.navsim.sensors",
    "beyonddrive.datasets.stores.shards",
    "beyonddrive.engine.executors",
    "beyonddrive.structures.plan",
)


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_neither_torch_nor_mmengine(module):
    script = f"import sys, {module}\nsys.exit(bool({{'torch', 'mmengine'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_no_environment_variable_is_an_interface():
    """Settings live in configs and arguments (torchrun's own variables are mmengine's business)."""
    readers = [
        module
        for module, tree in _trees().items()
        if "os.environ[" in ast.unparse(tree).replace("os.environ.get(", "os.environ[")
    ]
    assert not [m for m in readers if not m.startswith("engine.")], os.linesep.join(readers)
