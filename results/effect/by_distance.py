"""The published recipe's gain by distance of the nearest failure: ``python results/effect/by_distance.py``.

Every row ``<family>, published`` of ``planners.yml`` that has runs is a line of
``docs/pictures/gain_by_distance.png``: its paired difference from the family without negatives, in the bands
of ``subsets.py``, with the 95 % bootstrap interval over seeds and scenes, or over scenes alone with one seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from matplotlib.figure import Figure

from beyonddrive.evaluation.statistics.intervals import Estimate
from beyonddrive.results.pictures import PICTURES, write_picture
from beyonddrive.results.tables import KeptTable
from beyonddrive.visualization.sweep_tables import seeds_text

PICTURE = PICTURES / "gain_by_distance.png"
BANDS = {
    "failure_within_0.5m": "within 0.5 m",
    "failure_at_0.5_to_1m": "0.5 to 1 m",
    "failure_at_1_to_2m": "1 to 2 m",
    "failure_beyond_2m": "beyond 2 m",
}
"""Parts and what they are called under the picture."""
ENDING = ", published"
_SPREAD = 0.4
"""Width that the families of a band take, in bands."""


def gains(table: KeptTable) -> dict[str, dict[str, Estimate]]:
    """Differences by family and band; families and bands without a comparison are left out."""
    found: dict[str, dict[str, Estimate]] = {}
    for band in BANDS:
        if band not in table.parts:
            continue
        for row in table.rows(table.scores(band)):
            if row.name.endswith(ENDING) and row.difference is not None:
                found.setdefault(row.name.removesuffix(ENDING), {})[band] = row.difference
    return found


def values_of(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, dict[str, float]]]:
    """Gains as numbers."""
    return {family: {band: asdict(gain) for band, gain in bands.items()} for family, bands in found.items()}


def current() -> dict[str, dict[str, dict[str, float]]]:
    """What the picture has to show."""
    return values_of(gains(KeptTable("effect/planners")))


def drawn(found: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """The picture: a colour per family, which the legend names with its number of seeds."""
    figure = Figure((6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0.0, color="0.6", linewidth=1.0)
    for place, (family, bands) in enumerate(found.items()):
        shift = _SPREAD * ((place + 0.5) / len(found) - 0.5)
        places = [list(BANDS).index(band) + shift for band in bands]
        means = [gain.mean for gain in bands.values()]
        reach = [[g.mean - g.low for g in bands.values()], [g.high - g.mean for g in bands.values()]]
        seeds = next(iter(bands.values())).num_seeds
        label = f"{family} ({seeds_text(seeds)})"
        axes.errorbar(places, means, reach, fmt="o-", linewidth=1.0, elinewidth=1.6, capsize=3, label=label)
    axes.set_xticks(range(len(BANDS)), list(BANDS.values()))
    axes.set(
        xlabel="distance of the nearest failure from the expert", ylabel="gain in PDMS, published recipe"
    )
    axes.legend()
    return figure


def main() -> None:
    """Draw."""
    found = gains(KeptTable("effect/planners"))
    if not found:
        raise SystemExit("by_distance: no row with the published recipe has runs beside its baseline")
    write_picture(PICTURE, drawn(found), values_of(found))
    for family, bands in found.items():
        told = (f"{BANDS[b]}: {g.mean:+.2f} ({g.low:+.2f} to {g.high:+.2f})" for b, g in bands.items())
        print(f"{family}: {'; '.join(told)}")


if __name__ == "__main__":
    main()
