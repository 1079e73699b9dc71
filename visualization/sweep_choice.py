"""Which row of a sweep is chosen: by validation scenes, said with how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from beyonddrive.evaluation.statistics.score_table import ScoreTable
from beyonddrive.visualization.sweep_tables import seeds_text, signed, table_rows

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
    means = {name: table.of(name, score).mean() for name in choices if table.seeds(name)}
    if len(means) < 2:
        return NOTHING_CHOSEN
    # (of equal ones the first, so that the order of the plan decides and not that of a sort)
    first, second = sorted(means, key=lambda name: -means[name])[:2]
    (apart,) = table_rows(table, {first: second})
    text = (
        f"Chosen on {CHOSEN_ON} among {len(means)} rows, by {score} alone: **{first}** "
        f"({means[first]:.2f}; next {second}, {means[second]:.2f}"
    )
    trained_with = {tuple(table.seeds(name)) for name in means if name not in table.untrained}
    if apart.difference is None:
        text += ", which has other seeds, so the two are not paired)."
    else:
        low, high = apart.difference.widest
        interval = f", 95 % {signed(low)} to {signed(high)}" if apart.difference.num_scenes > 1 else ""
        text += f"; difference {signed(apart.difference.mean)}{interval})."
        text += "" if low > 0.0 else " The scenes do not tell these two apart."
    if lacking := [name for name in choices if name not in means]:
        text += f" Without scores there: {'; '.join(lacking)}."
    if len(trained_with) > 1:
        same = len({len(seeds) for seeds in trained_with}) == 1
        text += f" Rows have different {'seeds' if same else 'numbers of seeds'}."
    judged = tables.get(judged_on) if judged_on != CHOSEN_ON else None
    if judged is not None and (seeds := judged.seeds(first)):
        mean = judged.of(first, judged.columns[-1]).mean()
        text += f" On {judged_on}, which took no part in that: {mean:.2f} ({seeds_text(len(seeds))})."
    return text
