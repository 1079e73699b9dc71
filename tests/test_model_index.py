"""The model zoo's metafiles name every planner and config, and figures that stand elsewhere too."""

import re
from pathlib import Path

import pytest
import yaml

from beyonddrive.checkpoints.published_weights import read_metafile
from beyonddrive.results import marks as results
from beyonddrive.structures.plan import SCORE_COLUMNS

ROOT = Path(__file__).parents[1]
METAFILES = sorted(ROOT.glob(yaml.safe_load((ROOT / "model-index.yml").read_text())["Import"]))
PLANNERS = sorted(path.parent.name for path in ROOT.glob("plugins/*/README.md"))
DATASETS = ("NAVSIM navtest", "Generated world")


@pytest.fixture(params=PLANNERS)
def planner(request):
    """Name of a planner's folder."""
    return request.param


@pytest.fixture
def metafile(planner):
    path = ROOT / "configs" / planner / "metafile.yml"
    assert path in METAFILES, f"write {path.relative_to(ROOT)}, as other planners have it"
    return yaml.safe_load(path.read_text())


def words(text):
    """Text without line breaks."""
    return " ".join(text.split())


def figures_of(result):
    """Figures of a kept table that a result names as its source, to one decimal."""
    source, _, name = result["Source"].partition(" | ")
    row = results.row_of(source, name)
    return {key: round(row.score.mean if key == "PDMS" else row.columns[key], 1) for key in result["Metrics"]}


def test_a_readme_tells_how_many_trainings_its_sweep_makes(planner):
    text = words((ROOT / "plugins" / planner / "README.md").read_text())
    found = re.search(r'sweep --plan results/(\S+)\.yml .*? --rows "([^"]+)"( --seeds 0)? ', text)
    if found is None:
        pytest.skip("has no sweep")
    plan = results.KeptTable(found[1]).plan
    rows = sum(row.weights is None for row in plan.only([found[2]]).rows)
    numbers = {1: "One", 2: "Two", 5: "Five", 10: "Ten", 15: "Fifteen"}
    assert f"{numbers[rows * (1 if found[3] else len(plan.seeds))]} training" in text
    assert plan.seeds == tuple(range(len(plan.seeds))) and f"seeds 0 to {plan.seeds[-1]}" in text
    if found[3]:
        assert f"make {numbers[rows * len(plan.seeds)].lower()}." in text


def test_a_metafile_names_every_config_of_its_planner(planner, metafile):
    (collection,) = metafile["Collections"]
    assert collection["README"] == f"plugins/{planner}/README.md"
    readme = words((ROOT / collection["README"]).read_text())
    paper = collection.get("Paper", {})
    assert paper.get("Title", "") in readme
    assert paper.get("URL", "").replace("https://arxiv.org/abs/", "arXiv ") in readme
    configs = {f"configs/{planner}/{path.name}" for path in ROOT.glob(f"configs/{planner}/*.py")}
    listed = [model["Config"] for model in metafile["Models"]]
    assert set(listed) == configs, "write an entry for each config of the planner, and none for others"
    assert len(listed) == len(configs)
    for model in metafile["Models"]:
        assert model["In Collection"] == collection["Name"]
        ending = {"navtrain": "NAVSIM navtrain", "synth": "Generated world"}
        data = model.get("Metadata", {}).get("Training Data")
        assert data is None or data == ending[model["Config"].removesuffix(".py").rpartition("_")[2]]


def test_names_are_unique_and_lead_to_one_planner():
    names = [model["Name"] for path in METAFILES for model in yaml.safe_load(path.read_text())["Models"]]
    assert len(set(names)) == len(names) >= 40
    collections = [c["Name"] for path in METAFILES for c in yaml.safe_load(path.read_text())["Collections"]]
    assert len(set(collections)) == len(collections) == len(PLANNERS)


def test_figures_are_those_of_the_planners_page_or_of_the_results(planner, metafile):
    readme = (ROOT / "plugins" / planner / "README.md").read_text()
    for model in metafile["Models"]:
        for result in model.get("Results", ()):
            assert result["Task"] == "Planning" and result["Dataset"] in DATASETS
            assert result["Metrics"].keys() <= set(SCORE_COLUMNS) and "PDMS" in result["Metrics"]
            assert all(0 < value <= 100 for value in result["Metrics"].values())
            assert ("Source" in result) == (result["Dataset"] == "Generated world")
            if "Source" in result:
                assert figures_of(result) == result["Metrics"], model["Name"]
            else:
                for value in result["Metrics"].values():
                    assert re.search(rf"(?<![\d.]){value:g}(?![\d])", readme), (model["Name"], value)


def test_a_figure_that_the_results_do_not_have_is_noticed(monkeypatch):
    class Score:
        mean = 61.24

    class Row:
        score, columns = Score(), {"NC": 88.06}

    monkeypatch.setattr(
        results, "rows_of", lambda source: {"LTF": Row()} if source == "effect/a test" else {}
    )
    result = {"Source": "effect/a test | LTF", "Metrics": {"PDMS": 61.2, "NC": 88.1}}
    assert figures_of(result) == result["Metrics"]
    with pytest.raises(results.FigureError, match="no row 'TransFuser'"):
        figures_of({**result, "Source": "effect/a test | TransFuser"})


def test_what_can_be_reproduced_has_published_figures():
    rows = {name: row for path in METAFILES for name, row in read_metafile(path).items()}
    assert len(rows) >= 9
    for row in rows.values():
        assert list(ROOT.glob(f"configs/*/{row.config}.py"))
        assert bool(row.repo) == bool(row.file)
