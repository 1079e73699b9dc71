"""Pages of many scenes, log by log in processes: drawn, written, and listed in an index."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from beyonddrive.datasets.navsim.logs import LogError
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.engine.executors import Executor, SerialExecutor
from beyonddrive.visualization.panel import save_png
from beyonddrive.visualization.report_inputs import INDEX, ScenePicture, write_picture_index
from beyonddrive.visualization.scene_choice import HUMAN, PlansError
from beyonddrive.visualization.scene_pages import ScenePages

Plans = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""(N, 8, 3) by planner and token."""


class _SceneResult(NamedTuple):
    """What became of a scene; ``reason`` is why it is none, if a whole one may be in another log."""

    token: str
    pictures: list[ScenePicture]
    problems: list[str]
    reason: str = ""


class _LogResult(NamedTuple):
    scenes: list[_SceneResult]
    problem: str = ""


@dataclass(frozen=True)
class _Job:
    """The work of a log."""

    pages: ScenePages
    plans: Plans
    out: Path
    stems: Mapping[str, str]
    notes: Mapping[str, str]
    drawn: frozenset[str]

    def run(self, path: Path) -> _LogResult:
        pages, results = self.pages, []
        try:
            for token, scene in pages.root.log_scenes(path, pages.split, self.stems):
                results.append(
                    self._draw(token, scene)
                    if isinstance(scene, Scene)
                    else _SceneResult(token, [], [], str(scene))
                )
        except LogError as error:
            return _LogResult(results, str(error))
        return _LogResult(results)

    def _draw(self, token: str, scene: Scene) -> _SceneResult:
        known = {name: by_token[token] for name, by_token in self.plans.items() if token in by_token}
        problems = [f"scene {token}: {name} has no plan of it" for name in self.plans if name not in known]
        names = [HUMAN, *(name for name in known if name != HUMAN)]
        files = {name: f"{self.stems[token]}_{file_name(name)}.png" for name in names}
        pictures = [ScenePicture(token, scene.log_name, name, self.out / files[name]) for name in names]
        if self.drawn.issuperset(files.values()) and self._are_newer(pictures, scene):
            return _SceneResult(token, pictures, problems)
        try:
            drawn = self.pages.draw(scene, known, self.notes.get(token, ""))
        except (ValueError, RuntimeError) as error:
            return _SceneResult(token, [], [*problems, f"scene {token}: {error}"])
        for name, picture in drawn.items():
            save_png(self.out / files[name], picture)
        return _SceneResult(token, pictures, problems)

    def _are_newer(self, pictures: Sequence[ScenePicture], scene: Scene) -> bool:
        """Whether pages are newer than the images on them, some of which may have been missing."""
        return min(picture.path.stat().st_mtime for picture in pictures) > self.pages.newest_image(scene)


_job: _Job | None = None
"""What this process works on."""


def _start(job: _Job) -> None:
    global _job
    _job = job


def _run(path: Path) -> _LogResult:
    assert _job is not None
    return _job.run(path)


def draw_scenes(
    pages: ScenePages,
    tokens: Sequence[str],
    plans: Plans,
    out: Path,
    executor: Executor | None = None,
    notes: Mapping[str, str] | None = None,
    made_from: Mapping[str, Any] | None = None,
) -> tuple[list[ScenePicture], list[str]]:
    """Draw the pages of scenes to ``out`` as ``<token>_<planner>.png``, with an index that a report reads.

    Args:
        pages: Draws them.
        tokens: Which scenes.
        plans: (N, 8, 3) by planner and token.
        out: Folder.
        executor: Where to draw; None is this process.
        notes: What the head of a scene's pages says first, by token. If there are any, the names of the files
            begin with the place of their scene among the tokens.
        made_from: What pictures depend on, as JSON values, but for the images: a job with the same goes on
            where it was stopped, and draws scenes again whose images are newer. None draws everything again.

    Returns:
        What was drawn, in the order of the tokens, and what could not be, each with the reason; the rest is
        drawn all the same.

    Raises:
        PlansError: If two planners have the same name for files.
    """
    names: dict[str, str] = {}
    for name in {HUMAN: None, **dict.fromkeys(plans)}:
        other = names.setdefault(file_name(name), name)
        if other != name:
            raise PlansError(f"planners {other} and {name}: their pictures would have one name; rename one")
    out, notes, digits = Path(out), notes or {}, len(str(len(tokens)))
    stems = {
        token: f"{place:0{digits}d}_{token}" if notes else token for place, token in enumerate(tokens, 1)
    }
    made = None if made_from is None else json.loads(json.dumps({**made_from, "notes": notes}))
    mine = {f"{stem}_{name}.png" for stem in stems.values() for name in names}
    known = _made_before(out, made)
    drawn = frozenset(name for name in known if (out / name).is_file())
    if made is not None:
        for name in mine - drawn:  # of other plans: once the index is written nobody could tell
            (out / name).unlink(missing_ok=True)
    files = () if made is None else sorted(known | mine)
    write_picture_index(out, [], made, files)  # so that a job that is killed can go on
    results: dict[str, _SceneResult] = {}
    problems: list[str] = []
    job = _Job(pages, plans, out, stems, notes, drawn)
    logs = pages.root.log_paths(pages.split)
    with (
        tqdm(total=len(stems), desc="draw scenes", unit="scene", dynamic_ncols=True) as bar,
        closing(_results(executor or SerialExecutor(), job, logs)) as found,
    ):
        for log in found:
            problems += [log.problem] if log.problem else []
            for result in log.scenes:
                bar.update(not result.reason)
                if result.token not in results or results[result.token].reason:
                    results[result.token] = result
            if len(results) == len(stems) and not any(result.reason for result in results.values()):
                break
    lost = f"no frame of split {pages.split} in {pages.root.root} has this token"
    lost += "; it may be in a log that cannot be read" if problems else ""
    ordered = [results.get(token) or _SceneResult(token, [], [], lost) for token in stems]
    pictures = [picture for result in ordered for picture in result.pictures]
    for result in ordered:
        problems += [f"scene {result.token}: {result.reason}"] if result.reason else result.problems
    write_picture_index(out, pictures, made, files)
    return pictures, problems


def _results(executor: Executor, job: _Job, logs: Sequence[Path]) -> Generator[_LogResult, None, None]:
    yield from executor.map(_run, logs, initializer=_start, initargs=(job,))


def _made_before(out: Path, made_from: Mapping[str, Any] | None) -> frozenset[str]:
    """Names of pictures that, if they are there, were made from the same; none if others are."""
    try:
        index = json.loads((out / INDEX).read_text())
        before, files = index.get("made_from"), index.get("files", ())
    except (OSError, ValueError, AttributeError):
        return frozenset()
    if made_from is None or before != made_from:
        return frozenset()
    return frozenset(map(str, files))


def file_name(label: str) -> str:
    """A label as part of a file name.

    >>> file_name('LTF + BeyondDrive')
    'ltf-beyonddrive'
    """
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "planner"
