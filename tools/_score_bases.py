"""``beyonddrive score --basis``: every basis of one file of plans in one table."""

from __future__ import annotations

import argparse
from pathlib import Path

from beyonddrive.tools._command_line import executor_of, refuse_idle, tell, tell_all


def add_basis_options(parser: argparse.ArgumentParser) -> None:
    """Give a command line the options of bases."""
    group = parser.add_argument_group("every basis in one table")
    group.add_argument(
        "--basis",
        metavar="NAME[,NAME]",
        help="all, or names such as pdms,epdms,two-stage (docs/pdm_score.md): one labelled table; --out is "
        "then the name of a table, of which .csv and .json are written",
    )
    group.add_argument(
        "--two-stage",
        type=Path,
        metavar="FILE",
        help="NAVSIM's train_test_split/<name>.yaml with the pairs of two stages, if not in DATA_ROOT",
    )
    group.add_argument(
        "--synthetic-scenes", type=Path, metavar="DIR", help="folder synthetic_scene_pickles, likewise"
    )
    group.add_argument(
        "--missing",
        choices=("refuse", "zero"),
        default="refuse",
        help="two stages: what a scene without a plan does",
    )


def check_basis_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if args.basis is None:
        refuse_idle(parser, args, ("two_stage", "synthetic_scenes", "missing"), "--basis")
        return
    single = {
        "--explain": args.explain is not None,
        "--cache-dir": args.cache_dir is not None,  # holds no traffic that can react
        "--progress pooled": args.progress != "pair",
        "--version": args.version != "v1",
        "--no-human-filter": not args.human_filter,
    }
    for option, is_given in single.items():
        if is_given:
            parser.error(f"{option}: does not go with --basis, whose names say what is computed")


def table_stem(out: Path) -> Path:
    """Name of the table without an ending that its files get."""
    return out.with_suffix("") if out.suffix in (".csv", ".json", ".npz") else out


def _refuse_idle(args: argparse.Namespace, is_split: bool) -> None:
    """Refuse options of two stages that do nothing for bases of one.

    Args:
        args: The command line.
        is_split: Whether ``--split`` names a split of logs, and not a table of pairs that says which.

    Raises:
        LabelError: If there is one.
    """
    from beyonddrive.evaluation.score_labels import LabelError

    given = {
        "--missing zero": args.missing != "refuse",
        "--synthetic-scenes": is_split and args.synthetic_scenes is not None,
        "--two-stage": is_split and args.two_stage is not None,
    }
    for option, is_given in given.items():
        if is_given:
            raise LabelError(f"{option}: goes with a basis of two stages; --basis {args.basis} has none")


def score_bases(args: argparse.Namespace) -> int:
    """Score on every basis and write the table; 1 if a scene has no score or a basis no result."""
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.engine.runner.result_paths import check_results
    from beyonddrive.evaluation.bases.places import TwoStageData, find_two_stages
    from beyonddrive.evaluation.bases.run import BasesScoring, files_of
    from beyonddrive.evaluation.bases.scenes import SceneRecord
    from beyonddrive.evaluation.bases.tables import format_bases, write_bases
    from beyonddrive.evaluation.plan_files import PlanFile
    from beyonddrive.evaluation.score_files import describe_inputs, open_parts
    from beyonddrive.evaluation.score_labels import LabelError, parse_bases

    bases, stem = parse_bases(args.basis), table_stem(args.out)
    executor = executor_of(args)
    plans = PlanFile(args.plans)
    root = NavsimRoot(args.data_root, args.maps_root)
    has_two_stages = any(basis.stages == 2 for basis in bases)
    is_split = (root.root / "navsim_logs" / args.split).is_dir()
    if not has_two_stages:
        _refuse_idle(args, is_split)
    # (a table of pairs also says where the logs are of a split that has the name of the table)
    is_needed = has_two_stages or args.two_stage or not is_split
    two_stages: TwoStageData | str = "no basis has two stages"
    if is_needed:
        places = (args.two_stage, args.synthetic_scenes, root.maps_root)
        two_stages = find_two_stages(root.root, args.split, *places)
    no_data = has_two_stages and isinstance(two_stages, str)
    if no_data and all(basis.stages == 2 for basis in bases):
        raise LabelError(f"--basis {args.basis}: {two_stages}")
    scoring = BasesScoring(
        root, args.split, plans, str(args.plans), bases, two_stages, args.missing == "zero"
    )
    read = files_of(two_stages)
    table = {f"--out: {ending}": f"{stem}.{ending}" for ending in ("csv", "json")}
    check_results(table, [args.plans, *read])
    inputs = describe_inputs(root, scoring.split, args.plans, read)
    config = {
        **inputs,
        "bases": [basis.name for basis in bases],
        "missing": args.missing,
        "records": list(SceneRecord._fields),
    }
    with open_parts(stem.with_name(f"{stem.name}.bases"), config) as parts:
        if parts.done:
            tell("score", f"{len(parts.done)} scenes were scored before")
        for record in scoring.run(executor, parts.done):
            parts.keep(record.token, record.to_arrays())
        records = {token: SceneRecord.from_arrays(token, arrays) for token, arrays in parts.records()}
        results = scoring.results(records)
        written = write_bases(stem, results, args.plans, scoring.problems)
        parts.remove()
    print(format_bases(results))
    for problem in scoring.problems:
        tell("score", problem)
    notes: dict[str, list[str]] = {}
    for result in results:
        if result.note:
            notes.setdefault(result.note, []).append(result.label.basis)
    for note, names in notes.items():
        tell("score", f"{', '.join(dict.fromkeys(names))}: {note}")
    if no_data:
        best = [r for r in results if r.means and r.label.score == "EPDMS"]
        if best:
            tell("score", f"without data of two stages, {best[0].label.basis} is the one to compare by")
    if scoring.missing:
        tell_all("score", [f"{token} has no plan" for token in scoring.missing])
        tell("score", f"{written[1]} lists all {len(scoring.missing)} scenes without a plan")
    tell_all(
        "score",
        list(
            dict.fromkeys(
                f"{token}: {reason}" for result in results for token, reason in result.causes.items()
            )
        ),
    )
    print(f"{written[0]} and {written[1]}: {sum(bool(r.means) for r in results)} of {len(results)} results")
    counted = [r for r in results if not (no_data and r.label.stages == 2)]
    return int(any(result.failures or not result.means for result in counted))
