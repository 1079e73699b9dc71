"""What a sweep trains: rows, seeds and where they are judged, from a file or a command line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from beyonddrive.engine.config_values import ConfigError, item_text
from beyonddrive.structures.errors import BeyondDriveError

Checkpoint = Literal["last", "best"]
LOADERS = ("test", "val")
"""Data loaders of a config on which a sweep can judge."""
OF_THE_SWEEP = {
    "num_threads": "the runs at a time share the cores (--jobs)",
    "randomness.seed": "every row is trained with the seeds of the sweep (--seeds)",
    "work_dir": "every run has its own below --out",
}
"""Settings of a config that a sweep makes itself, and from what."""
_KEYS = {"title", "rows", "seeds", "options", "loaders", "further", "checkpoint", "subsets", "choices"}
_ROW_KEYS = {"config", "bases", "options", "baseline", "shared_options", "weights"}
_SEEDS = 2**32
"""Seeds that there are: numpy takes no others."""
_YAML = "tag:yaml.org,2002:"
"""Start of the tags of yaml's own kinds of values."""


class SweepError(BeyondDriveError, ValueError):
    """A sweep that cannot be planned, or whose folder holds another one; names the key and the remedy."""


@dataclass(frozen=True)
class Row:
    """One row of the table: a recipe that is trained with every seed.

    Attributes:
        name: For readers.
        config: Name or path of its config.
        bases: Further base configs, which are merged over it in this order.
        options: Values by dotted key, as texts of ``--cfg-options``.
        baseline: Name of the row that it is compared with; None for a row that stands for itself.
        weights: Name of the row whose checkpoints it judges, seed by seed, with its own config, such as other
            inputs; None for a row that is trained.
    """

    name: str
    config: str
    bases: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    baseline: str | None = None
    weights: str | None = None

    @property
    def slug(self) -> str:
        """The name as a folder is called."""
        return re.sub(r"[^a-z0-9_.=]+", "-", self.name.lower()).strip("-.") or "row"


@dataclass(frozen=True)
class SweepPlan:
    """All that a sweep trains.

    Attributes:
        rows: In the order of the table.
        seeds: Every row is trained with each; a row without a training has one run.
        loaders: Loaders of the configs on which every run is judged.
        further: Names of bases, such as ``epdms``, on which it is judged besides by the metric of its config,
            on the first loader.
        choices: Rows of which the report names the best by validation scenes.
        checkpoint: ``last``: that of the last epoch; ``best``: that of the highest validation score.
        subsets: Scene filters by name: parts of the judged scenes that get a table of their own.
        title: Of the report.
    """

    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0,)
    loaders: tuple[str, ...] = ("test",)
    checkpoint: Checkpoint = "last"
    subsets: Mapping[str, Path] = field(default_factory=dict)
    title: str = "Sweep"
    further: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if not names:
            raise SweepError("rows: a sweep needs at least one")
        for kind, values in (
            ("rows", names),
            ("rows", [row.slug for row in self.rows]),
            ("seeds", self.seeds),
            ("further", self.further),
            ("choices", self.choices),
        ):
            twice = sorted({str(value) for value in values if list(values).count(value) > 1})
            if twice:
                raise SweepError(f"{kind}: {', '.join(twice)} is there twice; give each its own")
        if not self.seeds or min(self.seeds) < 0 or max(self.seeds) >= _SEEDS:
            raise SweepError(
                f"seeds: give at least one, none negative and all below {_SEEDS}; got {list(self.seeds)}"
            )
        if not self.loaders or set(self.loaders) - set(LOADERS) or len(set(self.loaders)) < len(self.loaders):
            raise SweepError(f"loaders: must be some of {', '.join(LOADERS)}, got {list(self.loaders)}")
        if strangers := [name for name in self.choices if name not in names]:
            raise SweepError(f"choices: {', '.join(strangers)} is no row; there is {', '.join(names)}")
        if self.checkpoint not in ("last", "best"):
            raise SweepError(f"checkpoint: must be 'last' or 'best', got {self.checkpoint!r}")
        judged = {*LOADERS, *(f"{name}-{basis}" for name in LOADERS for basis in self.further)}
        for name in self.subsets:
            # (a part is found by its name, so one of the same name would stand in the place of the other)
            others = {f"{other}-{basis}" for other in self.subsets for basis in self.further}
            if name in judged | others or not re.fullmatch(r"[\w.-]+", name):
                raise SweepError(
                    f"subsets.{name}: is part of the names of files, so take letters, digits, '_', '-' and "
                    f"'.', and none of {', '.join(sorted(judged | others))}"
                )
        for row in self.rows:
            for key in sorted(OF_THE_SWEEP.keys() & row.options.keys()):
                raise SweepError(
                    f"rows.{row.name}.options.{key}: would be ignored: {OF_THE_SWEEP[key]}; leave it out"
                )
            if row.baseline is not None and (row.baseline not in names or row.baseline == row.name):
                raise SweepError(
                    f"rows.{row.name}.baseline: {row.baseline!r} is no other row; there is {', '.join(names)}"
                )
            if row.weights is not None and (row.weights not in names or self.row(row.weights).weights):
                trained = ", ".join(other.name for other in self.rows if not other.weights)
                raise SweepError(
                    f"rows.{row.name}.weights: {row.weights!r} is no row that is trained; there is {trained}"
                )

    def row(self, name: str) -> Row:
        """The row of a name.

        Raises:
            SweepError: If there is no such row.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise SweepError(f"rows: no row {name!r}; there is {', '.join(row.name for row in self.rows)}")

    def only(self, names: Sequence[str]) -> SweepPlan:
        """The plan with some of its rows, those that they need, and those that these need.

        Raises:
            SweepError: If there is no such row.
        """
        lacking = [name for name in names if name not in {row.name for row in self.rows}]
        if lacking:
            raise SweepError(f"--rows: the plan has no {', '.join(lacking)}")
        kept: set[str] = set()
        open_names = list(names)
        while open_names:
            row = self.row(open_names.pop())
            kept.add(row.name)
            open_names += [name for name in (row.baseline, row.weights) if name and name not in kept]
        return replace(
            self,
            rows=tuple(row for row in self.rows if row.name in kept),
            choices=tuple(name for name in self.choices if name in kept),
        )


def read_seeds(text: str) -> tuple[int, ...]:
    """Seeds from ``0:5`` (0 to 4) or ``0,3,7``.

    Raises:
        SweepError: If it is neither.

    >>> read_seeds('0:3'), read_seeds('4'), read_seeds('0,2')
    ((0, 1, 2), (4,), (0, 2))
    """
    try:
        if ":" in text:
            first, end = text.split(":")
            return tuple(range(int(first), int(end)))
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise SweepError(f"seeds: {text!r} is neither like 0:5 nor like 0,3,7") from error


def plan_of_grid(
    configs: Sequence[str],
    grid: Mapping[str, Sequence[str]],
    options: Mapping[str, str],
    seeds: tuple[int, ...],
    baseline: str | None = None,
    **settings: Any,
) -> SweepPlan:
    """Every config with every combination of values.

    Args:
        configs: Names or paths.
        grid: Values by dotted key, as texts.
        options: Values that all rows have.
        seeds: Of every row.
        baseline: The row that the others are compared with: its name, or ``key=value`` of a value of the grid
            (the row with the same config and other values), where ``key`` may be the end of a dotted key.
        settings: Further attributes of the plan.

    Raises:
        SweepError: If the baseline is none of the rows, or names two keys, or an option is in the grid, too.

    >>> plan = plan_of_grid(['ltf'], {'model.repulsion.weight': ['0', '5']}, {}, (0, 1), 'weight=0')
    >>> [(row.name, row.baseline) for row in plan.rows]
    [('ltf weight=0', None), ('ltf weight=5', 'ltf weight=0')]
    """
    if twice := sorted(grid.keys() & options.keys()):
        raise SweepError(f"--cfg-options {twice[0]}: --grid has values for it; leave it out of one of them")
    shown = {key: _ending(key, grid) for key in grid}
    chosen: dict[str, str] = {}
    if baseline is not None and "=" in baseline and baseline not in configs:
        key, _, value = baseline.partition("=")
        keys = [full for full in grid if full == key or full.endswith(f".{key}")]
        if len(keys) != 1 or value not in grid[keys[0]]:
            raise SweepError(f"baseline: {baseline} is no value of the grid; it has {_told(grid)}")
        chosen = {keys[0]: value}
    rows = []
    for config in configs:
        stem = Path(config.rpartition("::")[2]).stem
        for values in itertools.product(*grid.values()):
            own = dict(zip(grid, values, strict=True))
            name = " ".join([stem, *(f"{shown[key]}={value}" for key, value in own.items())])
            other = {**own, **chosen}
            partner = None
            if chosen:
                partner = " ".join([stem, *(f"{shown[key]}={value}" for key, value in other.items())])
            elif baseline is not None:
                partner = Path(baseline.rpartition("::")[2]).stem if baseline in configs else baseline
            rows.append(Row(name, config, (), {**options, **own}, None if partner == name else partner))
    if len(rows) > len(configs):
        # Whoever tries values wants to know the best one, which test scenes must not tell.
        settings = {"choices": tuple(row.name for row in rows), "loaders": LOADERS, **settings}
    return SweepPlan(tuple(rows), seeds, **settings)


def _ending(key: str, keys: Mapping[str, Any]) -> str:
    """The shortest end of a dotted key that no other key has."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        end = ".".join(parts[-length:])
        if sum(other == end or other.endswith(f".{end}") for other in keys) == 1:
            return end
    return key


def _told(grid: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{key}: {', '.join(values)}" for key, values in grid.items()) or "no values"


class _PlanLoader(yaml.SafeLoader):
    """Refuses a key that is there twice: yaml would take the last one, and a row were gone.

    A text like ``1:5`` stays one: yaml would take it for 1 minute 5 seconds, the number 65.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping of which every key was written once; merged ones (``<<``) do not count."""
        merge = f"{_YAML}merge"
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != merge]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]} is there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """A number; a text if it has colons."""
        text = str(self.construct_scalar(node))
        if ":" in text:
            return text
        is_whole = node.tag == f"{_YAML}int"
        return self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _PlanLoader.add_constructor(f"{_YAML}{_kind}", _PlanLoader.construct_number)


def read_plan(path: Path) -> SweepPlan:
    """Read a plan from a yaml file.

    ``rows`` maps names to ``config``, ``bases``, ``options``, ``baseline`` and ``weights``; ``options``
    beside them are those of all rows but those with ``shared_options: false``; ``seeds`` is a list or a
    text like ``0:5``; ``further`` lists bases, ``choices`` rows (or is ``all``); ``subsets`` maps names to
    scene filters; their paths start from the current folder, or from that of the plan if they are not there.

    Raises:
        SweepError: If it cannot be read, or a key is not understood; names the file.
    """
    try:
        content = yaml.load(path.read_text(), _PlanLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SweepError(f"{path}: cannot be read as a plan of a sweep ({error})") from error
    try:
        plan = _plan_of(content)
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from error
    beside = {name: path.parent / file for name, file in plan.subsets.items()}
    subsets = {
        name: beside[name] if beside[name].exists() and not file.exists() else file
        for name, file in plan.subsets.items()
    }
    return replace(plan, subsets=subsets)


def _plan_of(content: Any) -> SweepPlan:
    top = _mapping("", content, _KEYS)
    shared = _texts("options", top.get("options", {}))
    rows = []
    for name, value in _mapping("rows", top.get("rows"), None).items():
        where = f"rows.{name}"
        row = _mapping(where, value, _ROW_KEYS)
        if not isinstance(row.get("config"), str):
            raise SweepError(f"{where}.config: must name a config, got {row.get('config')!r}")
        bases = row.get("bases", [])
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise SweepError(f"{where}.bases: must be a list of configs, got {bases!r}")
        is_shared = row.get("shared_options", True)
        if not isinstance(is_shared, bool):
            raise SweepError(f"{where}.shared_options: must be true or false, got {is_shared!r}")
        options = {**(shared if is_shared else {}), **_texts(f"{where}.options", row.get("options", {}))}
        # (a number names a row as the number does that is the key of one)
        others = (None if row.get(key) is None else str(row[key]) for key in ("baseline", "weights"))
        rows.append(Row(str(name), row["config"], tuple(bases), options, *others))
    seeds = top.get("seeds", [0])
    if not isinstance(seeds, list):
        seeds = read_seeds(str(seeds))
    if not all(isinstance(seed, int) for seed in seeds):
        raise SweepError(f"seeds: must be whole numbers, got {seeds!r}")
    loaders = top.get("loaders", ["test"])
    if not isinstance(loaders, list) or not all(isinstance(name, str) for name in loaders):
        raise SweepError(f"loaders: must be a list of {' and '.join(LOADERS)}, got {loaders!r}")
    further = top.get("further", [])
    if not isinstance(further, list) or not all(isinstance(name, str) for name in further):
        raise SweepError(f"further: must be a list of bases such as epdms, got {further!r}")
    choices = top.get("choices", [])
    if choices == "all":
        choices = [row.name for row in rows]
    if not isinstance(choices, list):
        raise SweepError(f"choices: must be a list of rows, or all, got {choices!r}")
    subsets = {
        str(name): Path(str(file)) for name, file in _mapping("subsets", top.get("subsets", {}), None).items()
    }
    return SweepPlan(
        tuple(rows),
        tuple(seeds),
        tuple(loaders),
        top.get("checkpoint", "last"),
        subsets,
        str(top.get("title", "Sweep")),
        tuple(further),
        tuple(map(str, choices)),
    )


def _mapping(where: str, value: Any, keys: set[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SweepError(f"{where or 'the file'}: must map names to values, got {value!r}")
    unknown = sorted(str(key) for key in value if keys is not None and key not in keys)
    if unknown:
        raise SweepError(
            f"{where or 'the file'}: no key {', '.join(unknown)}; there is {', '.join(sorted(keys or ()))}"
        )
    return value


def _texts(where: str, value: Any, prefix: str = "") -> dict[str, str]:
    """Options as texts by dotted key; nested mappings are opened."""
    texts: dict[str, str] = {}
    for key, item in _mapping(where, value, None).items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            texts.update(_texts(f"{where}.{key}", item, f"{name}."))
        else:
            texts[name] = _text(f"{where}.{key}", item)
    return texts


def _text(where: str, value: Any) -> str:
    """A value as it is typed behind ``--cfg-options key=``."""
    if isinstance(value, dict):
        raise SweepError(
            f"{where}: an empty mapping, or one in a list, cannot be said on a command line; write it into a "
            "config, and name that in bases"
        )
    if isinstance(value, list):
        return f"[{','.join(_item(where, item) for item in value)}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _item(where: str, value: Any) -> str:
    """A value of a list likewise; a text stays one, also if it is all digits."""
    if not isinstance(value, str):
        return _text(where, value)
    try:
        return item_text(value)
    except ConfigError as error:
        raise SweepError(f"{where}: {error}; write it into a config, and name that in bases") from error
