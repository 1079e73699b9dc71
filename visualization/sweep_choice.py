"""Which row of a sweep is chosen: by validation scenes, said with how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from beyonddrive.evaluation.statistics.intervals import paired_difference
from beyonddrive.evaluation.statistics.score_table import ScoreTable
from beyonddrive.visualization.sweep_tables import interval_text, paired_seeds, seeds_text, signed

CHOSEN_ON = "val"
"""Part that rows are chosen by."""
NOTHING_CHOSEN = (
    "Nothing is chosen here: a row that is picked by its score on these scenes is no longer judged by it. "
    f"Choose on validation scenes (loader `{CHOSEN_ON}`)."
)


def choice_text(choices: Sequence[str], tables: Mapping[str, ScoreTable], judged_on: str) -> str:
    """The row with the highest mean on validation scenes, beside the next one, in a paragraph.

    Args:
        choices: Rows to choose among; with fewer than two there is no choice, and no text.
        tables: Scores by part.
        judged_on: Part on which the chosen row is judged; it takes no part in the choice.

    Returns:
        The paragraph; that nothing is chosen if the rows have no scores on validation scenes.

    >>> choice_text(["only"], {}, "test")
    ''
    """
    if len(choices) < 2:
        return ""
    if CHOSEN_ON not in tables:
        return NOTHING_CHOSEN
    table = tables[CHOSEN_ON]
    score = table.columns[-1]
    there = [name for name in choices if table.seeds(name)]
    if len(there) < 2:
        return NOTHING_CHOSEN
    # A row is compared by the seeds that all have: one that began well would win by its only seed.
    trained = [set(table.seeds(name)) for name in there if name not in table.untrained]
    common = sorted(set.intersection(*trained)) if trained else []
    if trained and not common:
        return "Nothing is chosen here: the rows to choose among have no seed in common."
    table = table.of_seeds(common)
    means = {name: table.of(name, score).mean() for name in there}
    # (of equal ones the first, so that the order of the plan decides and not that of a sort)
    first, second = sorted(means, key=lambda name: -means[name])[:2]
    ours, theirs = paired_seeds(table, first, second)
    found = paired_difference(table.of(first, score, ours), table.of(second, score, theirs))
    interval = f", 95 % {interval_text(found.interval)}" if found.num_scenes > 1 else ""
    text = (
        f"Chosen on {CHOSEN_ON} among {len(means)} rows, by {score} alone: **{first}** "
        f"({means[first]:.2f}; next {second}, {means[second]:.2f}; "
        f"difference {signed(found.mean)}{interval})."
    )
    text += "" if found.is_above_zero else " The scenes do not tell these two apart."
    if lacking := [name for name in choices if name not in means]:
        text += f" Without scores there: {'; '.join(lacking)}."
    if any(seeds != set(common) for seeds in trained):
        text += f" Rows have different seeds; they are compared by those that all have ({_listed(common)})."
    judged = tables.get(judged_on) if judged_on != CHOSEN_ON else None
    if judged is not None and (seeds := judged.seeds(first)):
        mean = judged.of(first, judged.columns[-1]).mean()
        text += f" On {judged_on}, which took no part in that: {mean:.2f} ({seeds_text(len(seeds))})."
    return text


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
