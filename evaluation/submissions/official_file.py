"""The official file of a submission, written without the devkit, read without trust (SUBMISSION, 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.plain_pickle import PlainObject, PlainPickleError, load_plain_pickle
from beyonddrive.engine.environment import write_made_with
from beyonddrive.engine.files import atomic_file
from beyonddrive.evaluation.submissions.boards import Board, Form, SubmissionError, Wanted, shown
from beyonddrive.evaluation.submissions.pickle_writer import Instance, NamedClass, PickleWriter
from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL

TRAJECTORY = NamedClass("navsim.common.dataclasses", "Trajectory")
SAMPLING = NamedClass("nuplan.planning.simulation.trajectory.trajectory_sampling", "TrajectorySampling")
_KEYS: dict[Form, tuple[str, ...]] = {
    "v1": ("predictions",),
    "v2": ("first_stage_predictions", "second_stage_predictions"),
}
MAX_BYTES = 1 << 30
"""Of a file that is read; navtest takes 3 MB per seed."""
_TIME_TOLERANCE = 1e-6

Plans = Mapping[str, NDArray[np.floating]]
"""Plan (8, 3) by token."""


@dataclass(frozen=True)
class Team:
    """Who submits; the official file wants all of it."""

    team_name: str
    authors: str
    email: str
    institution: str
    country: str

    def to_keys(self) -> dict[str, str]:
        """The texts under the official keys."""
        values = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        return {**{key: values[key] for key in _TEAM_KEYS[:-1]}, _TEAM_KEYS[-1]: values["country"]}


_TEAM_KEYS = ("team_name", "authors", "email", "institution", "country / region")


@dataclass(frozen=True, eq=False)
class Submission:
    """What a file holds.

    Attributes:
        team: Who submits.
        form: ``v1`` or ``v2``.
        seeds: Per seed, the plans of each stage: one mapping for v1, two for v2.
    """

    team: Team
    form: Form
    seeds: tuple[tuple[Plans, ...], ...]

    def check(self, board: Board, wanted: Wanted | None, source: str) -> None:
        """Whether it can be of a board.

        Raises:
            SubmissionError: If it is of another one, or lacks a scene.
        """
        if self.form != board.form:
            others = {"v1": "navtest, under PDMS", "v2": "a board of two stages, under EPDMS"}
            raise SubmissionError(
                f"{source}: holds {' and '.join(_KEYS[self.form])}, so it is for {others[self.form]}; board "
                f"{board.name} wants {' and '.join(_KEYS[board.form])}"
            )
        if wanted is not None:
            for number, stages in enumerate(self.seeds):
                name = source if len(self.seeds) == 1 else f"{source}, seed {number}"
                wanted.check(stages, name)


def split_stages(plans: Mapping[str, Any], wanted: Wanted, form: Form, source: str) -> tuple[Plans, ...]:
    """Plans of a file as the stages of a board want them; plans of other scenes are left out.

    Args:
        plans: Token -> one plan, (1, 8, 3) or (8, 3).
        wanted: Scenes of the board.
        form: Form of its file.
        source: Where the plans are from.

    Raises:
        SubmissionError: If a scene has no plan, several, or one that cannot be submitted.
    """
    stages = [wanted.first, wanted.second][: len(_KEYS[form])]
    wanted.check([[token for token in stage if token in plans] for stage in stages], source)
    return tuple({token: _one_plan(plans[token], token, source) for token in stage} for stage in stages)


def _one_plan(values: Any, token: str, source: str) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.ndim == 3:
        if len(array) != 1:
            raise SubmissionError(
                f"{source}: scene {token} has {len(array)} plans; a submission takes one per scene, the "
                f"planner's choice"
            )
        array = array[0]
    _check_poses(array, f"{source}: scene {token}")
    with np.errstate(over="ignore"):
        written = np.ascontiguousarray(array, dtype=np.float32)
    _check_poses(written, f"{source}: scene {token}, as float32")  # (in which 1e39 is infinity)
    return written


def _check_poses(array: NDArray[Any], where: str) -> None:
    if array.dtype.kind not in "fiu" or array.shape != (NUM_POSES, 3):
        raise SubmissionError(
            f"{where}: a plan must be {NUM_POSES} poses x, y, heading, one every {POSE_INTERVAL} s, got an "
            f"array {array.shape} of {array.dtype}"
        )
    if not np.isfinite(array).all():
        raise SubmissionError(f"{where}: the plan holds NaN or infinity, with which there is no score")


def write_submission(path: Path, submission: Submission) -> None:
    """Write the official file, whole or not at all."""
    sampling = Instance(
        SAMPLING,
        {
            "num_poses": NUM_POSES,
            "time_horizon": NUM_POSES * POSE_INTERVAL,
            "interval_length": POSE_INTERVAL,
        },
    )

    def instances(plans: Plans) -> dict[str, Instance]:
        return {
            token: Instance(TRAJECTORY, {"poses": np.asarray(plan), "trajectory_sampling": sampling})
            for token, plan in plans.items()
        }

    content: dict[str, Any] = dict(submission.team.to_keys())
    for stage, key in enumerate(_KEYS[submission.form]):
        content[key] = [instances(seed[stage]) for seed in submission.seeds]
    with atomic_file(Path(path)) as file:
        PickleWriter(file).write(content)
    write_made_with(Path(path))


def read_submission(path: Path) -> Submission:
    """Read an official file: numbers and texts only, nothing in it is imported or run.

    Raises:
        SubmissionError: If it is missing, damaged, asks for code, is no submission, or holds plans that are
            not eight finite poses every 0.5 s; names the first scene of the kind.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise SubmissionError(f"{path}: has {size} bytes, more than any submission ({MAX_BYTES})")
        content = load_plain_pickle(path, (TRAJECTORY, SAMPLING))
    except FileNotFoundError:
        raise SubmissionError(f"{path}: there is no such file") from None
    except OSError as error:
        raise SubmissionError(f"{path}: cannot be read ({error.strerror})") from error
    except PlainPickleError as error:
        hint = ""
        if "omegaconf" in str(error):
            hint = "; it was written with a list of authors: write it again with one text for all of them"
        raise SubmissionError(f"{path}: {error}{hint}") from error
    try:
        return _submission(content)
    except SubmissionError as error:
        raise SubmissionError(f"{path}: {error}") from None
    except PlainPickleError as error:
        raise SubmissionError(f"{path}: {error}") from error


def _submission(content: Any) -> Submission:
    if not isinstance(content, dict):
        raise SubmissionError(f"is no submission: a {type(content).__name__}, not a dictionary")
    forms = [form for form in _KEYS if any(key in content for key in _KEYS[form])]
    if len(forms) != 1:
        wanted = " or ".join(" and ".join(keys) for keys in _KEYS.values())
        raise SubmissionError(f"is no submission: expected {wanted}, got {shown(map(str, content))}")
    form: Form = forms[0]
    lists = []
    for key in _KEYS[form]:
        value = content.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(seed, dict) for seed in value):
            raise SubmissionError(f"{key}: expected a list with one dictionary of plans per seed")
        lists.append([_plans(seed, key) for seed in value])
    if len({len(seeds) for seeds in lists}) != 1:
        raise SubmissionError(f"{' and '.join(_KEYS[form])}: have different numbers of seeds")
    team = [content.get(key, "") for key in _TEAM_KEYS]
    for key, text in zip(_TEAM_KEYS, team, strict=True):
        if not isinstance(text, str):
            raise SubmissionError(f"{key}: expected a text, got a {type(text).__name__}")
    return Submission(Team(*team), form, tuple(zip(*lists, strict=True)))


def _plans(seed: dict[Any, Any], key: str) -> dict[str, NDArray[np.floating]]:
    plans: dict[str, NDArray[np.floating]] = {}
    for token, value in seed.items():
        where = f"{key}: scene {token}"
        if not isinstance(token, str):
            raise SubmissionError(f"{key}: {token!r} is no token")
        of = _attributes(value, TRAJECTORY, where)
        sampling = _attributes(of.get("trajectory_sampling"), SAMPLING, where)
        _check_sampling(sampling, where)
        poses = of.get("poses")
        if not isinstance(poses, np.ndarray):
            raise SubmissionError(f"{where}: poses must be an array, got a {type(poses).__name__}")
        _check_poses(poses, where)
        plans[token] = poses
    return plans


def _attributes(value: Any, of: NamedClass, where: str) -> dict[str, Any]:
    if not isinstance(value, PlainObject) or value.name != ".".join(of):
        raise SubmissionError(f"{where}: expected a {of.name}, got a {type(value).__name__}")
    return value.attributes()


def _check_sampling(sampling: Mapping[str, Any], where: str) -> None:
    wanted = {"num_poses": NUM_POSES, "interval_length": POSE_INTERVAL}
    for key, number in wanted.items():
        value = sampling.get(key)
        is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not is_number or not abs(float(value) - number) < _TIME_TOLERANCE:  # type: ignore[arg-type]
            raise SubmissionError(
                f"{where}: trajectory_sampling.{key} is {value!r}; plans of {number!r} are scored here "
                f"({NUM_POSES} poses every {POSE_INTERVAL} s)"
            )


def merged(submissions: Sequence[Submission], names: Sequence[str]) -> Submission:
    """One file of several seeds, under the first one's team.

    Raises:
        SubmissionError: If their forms or their scenes differ.
    """
    first = submissions[0]
    for submission, name in zip(submissions, names, strict=True):
        if submission.form != first.form:
            raise SubmissionError(f"{name}: has the form {submission.form}, {names[0]} has {first.form}")
        for stages in submission.seeds:
            for stage, own in zip(stages, first.seeds[0], strict=True):
                if stage.keys() != own.keys():
                    raise SubmissionError(
                        f"{name}: is of other scenes than {names[0]}: "
                        f"{shown(sorted(stage.keys() ^ own.keys()))}"
                    )
    return Submission(first.team, first.form, tuple(seed for one in submissions for seed in one.seeds))
