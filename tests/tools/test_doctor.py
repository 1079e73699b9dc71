"""The doctor: every ailment is told by one line, with its remedy, and by the exit code."""

import json
import pickle
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.apis import load_config
from beyonddrive.datasets.navsim.inventory import NamedFilter, data_checks, filters_of
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine import machine_checks
from beyonddrive.engine.checks import Check, attempt, exit_code
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.evaluation import self_test
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.evaluation.store_checks import store_checks
from beyonddrive.tools import _doctor_configs, doctor
from beyonddrive.tools._doctor_data import needed_data_checks


def named(checks, name):
    return [check for check in checks if check.name == name]


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# ------------------------------------------------------------------ the machine
def test_a_sound_machine_passes(capsys, tmp_path):
    out = tmp_path / "found.json"
    assert doctor.main(["--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "warn") for line in lines)
    report = json.loads(out.read_text())
    assert [check["name"] for check in report["checks"]][:2] == ["versions", "cpu"]
    assert {"blas", "speed fit", "score", "gpu", "navsim", "disk"} <= {c["name"] for c in report["checks"]}
    assert len(lines) == len(report["checks"])
    assert report["exit_code"] == 0 and report["environment"]["packages"]["numpy"] == np.__version__


def test_json_alone_on_standard_output(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "all_checks", lambda args: iter([Check("disk", "fail", "none")]))
    assert doctor.main(["--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["exit_code"] == 1 and printed["checks"][0]["message"] == "none"


def test_a_machine_that_scores_otherwise_fails(monkeypatch):
    (check,) = self_test.self_test_checks()
    assert check.status == "ok" and check.facts["pdms"] < 1e-9 and check.facts["epdms"] < 1e-9
    right = self_test.score

    def wrong(cache, plans, **settings):
        scores = right(cache, plans, **settings)
        scores.values[0, 2] += 1e-4
        return scores

    monkeypatch.setattr(self_test, "score", wrong)
    (check,) = self_test.self_test_checks()
    assert check.status == "fail" and "trust no score" in check.remedy
    monkeypatch.setattr(self_test, "score", lambda *a, **k: pytest.fail("was called"))
    with pytest.raises(self_test.SelfTestError, match="install beyonddrive again"):
        self_test.run_self_test(Path("nothing.npz"))


def test_the_recorded_scenes_are_what_the_script_records():
    from importlib.util import module_from_spec, spec_from_file_location

    path = Path(__file__).parents[1] / "evaluation/record_self_test.py"
    spec = spec_from_file_location("record_self_test", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    with np.load(self_test.SCENES) as archive:
        stored = {name: archive[name] for name in archive.files}
    made = module.record()
    assert stored.keys() == made.keys()
    for name, array in made.items():
        np.testing.assert_allclose(stored[name], array, rtol=0, atol=1e-6, err_msg=name)


def test_a_requirement_that_is_not_met(monkeypatch):
    wanted = ["numpy<1", "no-such-package-of-anyone", "scipy; extra == 'other'", "shapely"]
    monkeypatch.setattr(machine_checks.importlib.metadata, "requires", lambda name: wanted)
    (check,) = machine_checks.version_checks()
    assert check.status == "fail"
    assert (
        f"numpy is {np.__version__}, wanted <1; no-such-package-of-anyone is not installed" in check.message
    )


def test_a_check_that_breaks_fails_and_the_others_go_on():
    (check,) = attempt("gpu", lambda: [][1])
    assert exit_code([check]) == 1 and str(check) == "fail  gpu          IndexError: list index out of range"


# ------------------------------------------------------------------ the devkit's interpreter
def answer(tmp_path, **changes):
    facts = {
        "python": "3.9.18",
        "numpy": "1.26.4",
        "blas_kernel": "Haswell",
        "navsim": "",
        "error": {"pinv": 1e-12},
    }
    return script(tmp_path / "python", f"#!/bin/sh\necho '{json.dumps({**facts, **changes})}'\n")


def test_an_interpreter_that_can_be_trusted_and_others(tmp_path):
    check, package = machine_checks.devkit_checks(answer(tmp_path))
    assert check.status == package.status == "ok" and "can be trusted" in check.message
    broken = answer(tmp_path, numpy="1.23.4", blas_kernel="Cooperlake", error={"pinv": 2e5, "solve": 1.8})
    check, _ = machine_checks.devkit_checks(broken)
    assert check.status == "fail" and "speeds off by 2e+05 m/s" in check.message and "1.26" in check.remedy
    lucky = answer(tmp_path, numpy="1.23.4")
    check, _ = machine_checks.devkit_checks(lucky)
    assert check.status == "warn" and "on this machine" in check.message and "Cooperlake" in check.message


def test_the_real_interpreter_answers(tmp_path):
    import sys

    check, _ = machine_checks.devkit_checks(Path(sys.executable))
    assert check.facts["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not start (No such file or directory)"),
        ("not a program", "does not start"),
        ("#!/bin/sh\nexit 3\n", "ended with 3 and said 'nothing'"),
        ("#!/bin/sh\necho hello\n", "instead of what was asked"),
        ('#!/bin/sh\necho \'{"numpy": "1"}\'\n', "instead of what was asked"),
        ("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'numpy'\" >&2; exit 1\n", "has no numpy"),
    ],
)
def test_an_interpreter_that_does_not_start(tmp_path, capsys, monkeypatch, text, words):
    path = tmp_path / "python"
    if text is not None:
        script(path, text)
    monkeypatch.setattr(self_test, "self_test_checks", list)
    monkeypatch.setattr(machine_checks, "fit_checks", list)
    assert doctor.main(["--devkit-python", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"doctor: --devkit-python {path}: ") and words in said
    assert "give the python of the devkit's environment" in said and said.count("\n") == 1


def test_an_interpreter_that_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_checks, "DEVKIT_SECONDS", 0.2)
    path = script(tmp_path / "python", "#!/bin/sh\nexec sleep 30\n")
    with pytest.raises(machine_checks.DevkitError, match=r"no answer in 0\.2 s"):
        machine_checks.devkit_checks(path)


def test_the_package_navsim_is_looked_at_and_not_run(tmp_path, monkeypatch):
    place = tmp_path / "navsim"
    script(place / "__init__.py", "raise SystemExit('was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    (check,) = machine_checks.navsim_checks()
    assert check.status == "warn" and "another project" in check.message and "uninstall" in check.remedy
    for name in ("agents/abstract_agent.py", "common/dataclasses.py"):
        script(place / name, "")
    (check,) = machine_checks.navsim_checks()
    assert check.status == "ok" and check.facts["devkit"] == "v1"
    (place / "traffic_agents_policies").mkdir()
    assert machine_checks.navsim_checks()[0].facts["devkit"] == "v2"


# ------------------------------------------------------------------ the data
@pytest.fixture
def seen_root(split_root):
    """``split_root``, of whose scenes of val all that is seen now is there."""
    for path in (split_root / "navsim_logs/val").glob("*.pkl"):
        for frame in pickle.loads(path.read_bytes())[3:4]:
            files = [camera["data_path"] for camera in frame["cams"].values()] + [frame["lidar_path"]]
            for name in files:
                file = split_root / "sensor_blobs/val" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"x")
    return split_root


def test_splits_and_what_is_missing_of_them(seen_root):
    root = NavsimRoot(seen_root)
    logs = [path.stem for path in root.log_paths("val")]
    chosen = NamedFilter("mine", SceneFilter(log_names=logs), "val")
    checks = data_checks(root, ["val"], [chosen])
    by_frames = {(c.facts["kind"], c.facts["frames"]): c for c in checks if "kind" in c.facts}
    assert (
        by_frames["camera", "current"].message == "24 images of current frames in all of them, none missing"
    )
    assert by_frames["lidar", "history"].facts["missing"] == 9
    assert by_frames["camera", "history"].status == "warn"
    assert "72 of 72 images of frames before missing in all of them" in by_frames["camera", "history"].message
    assert named(checks, "filter mine")[0].message == "all windows, 3 logs, all in split val"
    (whole,) = [
        c for c in data_checks(root, ["train"], num_logs=2) if c.name == "split train" and not c.remedy
    ]
    assert whole.message.endswith("in 2 of 6 logs") and whole.facts["logs"] == 6


def test_logs_of_a_filter_have_to_be_in_its_split(split_root):
    root = NavsimRoot(split_root)
    (mine, *_), (other, *_) = ([path.stem for path in root.log_paths(split)] for split in ("val", "train"))
    chosen = SceneFilter(log_names=[mine, other])
    (check,) = named(data_checks(root, ["val"], [NamedFilter("mine", chosen, "val")]), "filter mine")
    assert check.status == "fail" and check.facts["absent"] == 1
    assert check.message.endswith(
        f"1 of its logs are not in split val, 1 of them in others: {other} in train"
    )
    (check,) = named(data_checks(root, ["val"], [NamedFilter("mine", chosen)]), "filter mine")
    assert check.status == "ok" and check.message.endswith("2 logs, all in splits of the data root")


def test_which_download_has_it(seen_root):
    (seen_root / "navsim_logs/train").rename(seen_root / "navsim_logs/trainval")
    root = NavsimRoot(seen_root)
    logs = [path.stem for path in root.log_paths("trainval")]
    checks = data_checks(
        root, ["trainval"], [NamedFilter("navtrain", SceneFilter(log_names=logs), "trainval")]
    )
    remedies = {c.facts["frames"]: c.remedy for c in checks if c.facts.get("kind") == "lidar"}
    assert "navtrain_current_*.tgz" in remedies["current"] and "navtrain_history_*.tgz" in remedies["history"]
    (seen_root / "synth.json").write_text("{}")  # what is no part of a generated world is not missed
    assert {c.status for c in data_checks(root, ["trainval"]) if "kind" in c.facts} == {"ok"}


def test_logs_maps_and_filters_that_are_broken(split_root):
    log = next((split_root / "navsim_logs/val").glob("*.pkl"))
    log.write_bytes(b"\x80\x04garbage")
    (split_root / "navsim_logs/none").mkdir()
    folder = split_root / "scene_filters"
    folder.mkdir()
    (folder / "a.yaml").write_text("tokens: 3\n")
    (folder / "b.yaml").write_text(f"log_names: [{log.stem}, elsewhere]\n")
    root = NavsimRoot(split_root)
    filters, damaged = filters_of(root)
    assert [check.status for check in damaged] == ["fail"] and "tokens" in damaged[0].message
    assert [(entry.name, entry.split) for entry in filters] == [("b", "val")]
    checks = data_checks(root, None, filters)
    assert "cannot be read" in named(checks, "split val")[0].message
    assert named(checks, "split none")[0].status == "fail"
    assert "1 of its logs are in no split, the first is elsewhere" in named(checks, "filter b")[0].message
    maps = shutil.copytree(split_root / "maps", split_root / "own_maps")
    shutil.rmtree(maps / "us-ma-boston")
    checks = data_checks(NavsimRoot(split_root, maps), ["train"])
    boston = named(checks, "map us-ma-boston")[0]
    assert boston.status == "fail" and "download_maps" in boston.remedy
    assert "is a stub" in named(checks, "map sg-one-north")[0].message
    assert named(data_checks(NavsimRoot(split_root, folder), ["train"]), "maps")[0].status == "fail"


# ------------------------------------------------------------------ stores and disk
def test_stores_are_fresh_or_not(split_root, tmp_path):
    root, store = NavsimRoot(split_root), tmp_path / "stores/metrics"
    cache_metrics(root, "val", SceneFilter(), store, SerialExecutor())
    (check,) = store_checks([tmp_path / "stores"], root)
    assert check.status == "ok" and check.facts["scenes"] == 3 and check.message.endswith("3 scenes; fresh")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/metrics").symlink_to(store)
    (tmp_path / "linked/circle").symlink_to(tmp_path / "linked")
    (check,) = store_checks([tmp_path / "linked"], root)
    assert check.status == "ok" and check.facts["path"] == str(tmp_path / "linked/metrics")
    log = root.log_paths("val")[0]
    frames = pickle.loads(log.read_bytes())
    frames[0]["vehicle_name"] = "another"
    log.write_bytes(pickle.dumps(frames))
    (check,) = store_checks([tmp_path / "stores"], root)
    assert check.status == "fail" and f"the first is logs/{log.name}" in check.message
    assert "beyonddrive cache-metrics" in check.remedy
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["config"]["cache_version"] = 1
    (store / "manifest.json").write_text(json.dumps(manifest))
    (check,) = store_checks([tmp_path / "stores"], root)
    assert check.status == "fail" and "cache_version 1, now" in check.message
    (store / "manifest.json").write_text("{")
    assert [c.status for c in store_checks([store, tmp_path / "none"])] == ["warn", "fail"]


def test_stores_are_compared_with_the_data_of_their_config(blind_recipe, split_root, tmp_path):
    """Of configs of several data roots, whose splits and logs have the same names."""
    other = shutil.copytree(split_root, tmp_path / "other")
    needs = []
    for root in (split_root, other):
        config = load_config(blind_recipe, {"data_root": str(root)})
        config.test_evaluator.cache_dir = str(tmp_path / f"metrics of {root.name}")
        cache_metrics(
            NavsimRoot(root), "test", SceneFilter(), config.test_evaluator.cache_dir, SerialExecutor()
        )
        needs.append(_doctor_configs.needs_of(root.name, config, ("test",)))
    log = NavsimRoot(other).log_paths("test")[0]
    log.write_bytes(pickle.dumps(pickle.loads(log.read_bytes())[:-1]))
    for order in (needs, needs[::-1]):
        stores = named(list(needed_data_checks(order)), "store")
        found = {Path(check.facts["path"]).name: check.status for check in stores}
        assert found == {f"metrics of {split_root.name}": "ok", "metrics of other": "fail"}


def test_a_config_is_told_what_it_lacks(blind_recipe, split_root, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(self_test, "self_test_checks", list)
    monkeypatch.setattr(machine_checks, "fit_checks", list)
    caches = f"test_evaluator.cache_dir={tmp_path / 'metrics'}"
    words = [str(blind_recipe), "--cfg-options", caches, f"work_dir={tmp_path / 'work'}"]
    assert doctor.main([*words, "--json", str(tmp_path / "found.json")]) == 0
    printed = capsys.readouterr().out
    assert "ok    split train  6 logs" in printed and f"{tmp_path / 'metrics'} is not there yet" in printed
    disk = named([Check(**c) for c in json.loads((tmp_path / "found.json").read_text())["checks"]], "disk")
    writes = {write["what"]: write for check in disk for write in check.facts["writes"]}
    assert writes["checkpoints"]["size"] > 0 and writes["metric caches of test"]["size"] > 30_000
    assert sum(check.facts["needed"] for check in disk) == sum(write["size"] for write in writes.values())
    monkeypatch.setattr(_doctor_configs.shutil, "disk_usage", lambda place: _Usage(1000))
    assert doctor.main(words) == 1
    assert "fail  disk" in capsys.readouterr().out
    assert doctor.main([str(tmp_path / "no_config.py")]) == 2


def test_stores_that_a_pipeline_reads_are_looked_at(blind_recipe, tmp_path):
    config = load_config(blind_recipe)
    scores = {"type": "LoadVocabularyScores", "store": str(tmp_path / "v"), "vocabulary": "plans.npz"}
    config.train_dataloader.dataset.pipeline = [
        scores,
        {"type": "LoadNegatives", "pool": str(tmp_path / "pool")},
        {"type": "PackPlanInputs"},
    ]
    config.val_dataloader.dataset.negatives = {"pool": str(tmp_path / "other pool")}
    stores = _doctor_configs.needs_of("blind", config).stores
    assert [tmp_path / name for name in ("v", "pool", "other pool")] == stores


def test_a_config_without_its_data_fails_and_the_rest_is_looked_at(
    blind_recipe, tmp_path, monkeypatch, capsys
):
    """Who asks before the data are there learns what to get, and still what the machine is worth."""
    monkeypatch.setattr(self_test, "self_test_checks", list)
    words = [
        str(blind_recipe),
        "--cfg-options",
        f"train_dataloader.dataset.scene_filter={tmp_path}/none.yaml",
    ]
    assert doctor.main(words) == 1
    printed = capsys.readouterr().out
    assert "ok    speed fit" in printed
    assert f"fail  config {blind_recipe}" in printed and f"{tmp_path}/none.yaml: there is no such" in printed


class _Usage:
    def __init__(self, free):
        self.free = free


def test_a_data_root_that_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(self_test, "self_test_checks", list)
    assert doctor.main(["--data-root", str(tmp_path)]) == 1
    assert "fail  data" in capsys.readouterr().out


def test_of_two_stages_the_original_scenes_are_looked_at(blind_recipe, tmp_path):
    data = Path(__file__).parents[1] / "data/golden/two_stage/data"
    config = load_config(blind_recipe)
    dataset = config.test_dataloader.dataset
    config.test_dataloader.dataset = {
        "type": "TwoStageDataset",
        "data_root": str(data),
        "two_stage": str(data / "two_stage_split.json"),
        "synthetic_scenes": str(data / "synthetic_scene_pickles"),
        "feature_pipeline": dataset.feature_pipeline,
        "pipeline": dataset.pipeline,
    }
    needs = _doctor_configs.needs_of("blind", config, ("test",))
    (source,) = needs.sources
    assert source.data_root == data and source.filter.name == "two_stage_split"
    assert source.filter.scene_filter.tokens and source.split == source.filter.split
    assert not needs.stores
