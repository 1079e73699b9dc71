"""Gains by distance of the nearest failure: ``python results/effect/by_distance.py``.

``docs/pictures/gain_by_distance.png`` has three parts: what the published recipe changes, what a calibration
does to the planner without negatives, and what the recipe changes where both are calibrated. Every family of
``planners.yml`` that has these rows is a line: the paired difference in the bands of ``subsets.py``,
with the 95 % interval of the tables, over seeds and scenes, or over scenes alone with one seed. Intervals
that reach beyond the picture are cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from beyonddrive.evaluation.statistics.intervals import Estimate
from beyonddrive.results.pictures import PICTURES, write_picture
from beyonddrive.results.tables import KeptTable
from beyonddrive.visualization.sweep_tables import interval_text, seeds_text, signed

PICTURE = PICTURES / "gain_by_distance.png"
BANDS = {
    "failure_within_0.5m": "within 0.5 m",
    "failure_at_0.5_to_1m": "0.5 to 1 m",
    "failure_at_1_to_2m": "1 to 2 m",
    "failure_beyond_2m": "beyond 2 m",
}
"""Parts and what they are called under the picture."""
RECIPE = ", published"
PANELS = {
    "published recipe": RECIPE,
    "calibration, no negatives": ", calibrated",
    "published recipe, both calibrated": f"{RECIPE}, calibrated",
}
"""Parts of the picture, and what the names of their rows end in after the family."""
_SPREAD = 0.4
"""Width that the families of a band take, in bands."""
_SHOWN = 20.0
"""Points that the picture reaches to either side; two seeds that disagree have far wider intervals."""

Gains = Mapping[str, Mapping[str, Mapping[str, Estimate]]]
"""Differences by part of the picture, family and band."""


def gains(table: KeptTable) -> Gains:
    """What the picture shows; families and bands without a comparison are left out."""
    found: dict[str, dict[str, dict[str, Estimate]]] = {panel: {} for panel in PANELS}
    names = {row.name for row in table.plan.rows}
    families = [name for name in names if all(name + ending in names for ending in PANELS.values())]
    families.sort(key=[row.name for row in table.plan.rows].index)
    for band in BANDS:
        if band not in table.parts:
            continue
        rows = {row.name: row.difference for row in table.rows(table.scores(band))}
        for panel, ending in PANELS.items():
            for family in families:
                if (gain := rows.get(family + ending)) is not None:
                    found[panel].setdefault(family, {})[band] = gain
    return found


def values_of(found: Gains) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Gains as numbers."""
    return {
        panel: {
            family: {band: gain.as_numbers() for band, gain in bands.items()}
            for family, bands in rows.items()
        }
        for panel, rows in found.items()
    }


def current() -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """What the picture has to show."""
    return values_of(gains(KeptTable("effect/planners")))


def drawn(found: Gains) -> Figure:
    """The picture: a colour per family, which the legend names with its number of seeds."""
    figure = Figure((10.0, 3.8), layout="constrained")
    families = list(dict.fromkeys(family for rows in found.values() for family in rows))
    panels = figure.subplots(1, len(found), sharey=True)
    labelled: dict[str, Any] = {}
    for axes, (panel, rows) in zip(panels, found.items(), strict=True):
        axes.axhline(0.0, color="0.6", linewidth=1.0)
        for family, bands in rows.items():
            place = families.index(family)
            shift = _SPREAD * ((place + 0.5) / len(families) - 0.5)
            places = [list(BANDS).index(band) + shift for band in bands]
            means = [gain.mean for gain in bands.values()]
            ends = [gain.interval for gain in bands.values()]
            reach = [
                [mean - low for mean, (low, _) in zip(means, ends, strict=True)],
                [high - mean for mean, (_, high) in zip(means, ends, strict=True)],
            ]
            line = axes.errorbar(
                places, means, reach, fmt="o-", color=f"C{place}", linewidth=1.0, elinewidth=1.6, capsize=3
            )
            seeds = next(iter(bands.values())).num_seeds
            labelled.setdefault(f"{family} ({seeds_text(seeds)})", line)
        axes.set_title(panel, fontsize="medium")
        axes.set_xticks(range(len(BANDS)), list(BANDS.values()), fontsize="small")
    panels[0].set_ylabel("gain in PDMS")
    panels[0].set_ylim(-_SHOWN, _SHOWN)
    panels[len(found) // 2].set_xlabel("distance of the nearest failure from the expert")
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def main() -> None:
    """Draw."""
    found = gains(KeptTable("effect/planners"))
    if not any(found.values()):
        raise SystemExit("by_distance: no row with the published recipe has runs beside its baseline")
    write_picture(PICTURE, drawn(found), values_of(found))
    for panel, rows in found.items():
        print(f"{panel}:")
        for family, bands in rows.items():
            told = (
                f"{BANDS[band]}: {signed(gain.mean)} ({interval_text(gain.interval)})"
                for band, gain in bands.items()
            )
            print(f"  {family}: {'; '.join(told)}")


if __name__ == "__main__":
    main()
