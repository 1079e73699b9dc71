import yaml

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.tools import split_scene_filter


def test_training_and_validation_share_no_scene_and_lose_none(split_root, tmp_path, capfd):
    root = NavsimRoot(split_root)
    every = {ref.token: ref.log_path.stem for ref in root.refs("train", SceneFilter(frame_interval=1))}
    logs = sorted(set(every.values()))
    tokens = sorted(every)[:-1]
    whole, lists = tmp_path / "navtrain.yaml", tmp_path / "lists.yaml"
    whole.write_text(yaml.safe_dump({"frame_interval": 1, "tokens": tokens, "log_names": logs}))
    lists.write_text(
        yaml.safe_dump({"train_logs": logs[:4], "val_logs": [*logs[4:], "log of another split"]})
    )
    args = [str(whole), str(lists), "--data-root", str(split_root), "--split", "train"]
    assert split_scene_filter.main(args) == 0
    parts = {}
    for part in ("train", "val"):
        scene_filter = SceneFilter.from_yaml(split_root / "scene_filters" / f"navtrain_{part}.yaml")
        root.forget_problems()
        parts[part] = [ref.token for ref in root.refs("train", scene_filter)]
        assert root.problems == [] and sorted(parts[part]) == sorted(scene_filter.tokens)
    assert sorted(parts["train"] + parts["val"]) == tokens
    assert {every[token] for token in parts["val"]} <= set(logs[4:])
    assert "4 logs" in capfd.readouterr().out


def test_lists_that_overlap_or_lack_a_part_are_refused(split_root, tmp_path, capfd):
    whole, lists = tmp_path / "navtrain.yaml", tmp_path / "lists.yaml"
    whole.write_text("frame_interval: 1\n")
    args = [str(whole), str(lists), "--data-root", str(split_root), "--split", "train"]
    lists.write_text(yaml.safe_dump({"train_logs": ["a", "b"], "val_logs": ["b"]}))
    assert split_scene_filter.main(args) == 1
    assert "log b is in train_logs and in val_logs" in capfd.readouterr().err
    lists.write_text(yaml.safe_dump({"train_logs": ["a"]}))
    assert split_scene_filter.main(args) == 1
    assert "val_logs" in capfd.readouterr().err
    lists.write_text(yaml.safe_dump({"train_logs": ["a"], "val_logs": ["b"]}))
    assert split_scene_filter.main(args) == 1
    assert "none of 1 logs has a scene" in capfd.readouterr().err


def test_what_is_not_on_disk_is_kept_or_told(split_root, tmp_path, capfd):
    root = NavsimRoot(split_root)
    every = {ref.token: ref.log_path for ref in root.refs("train", SceneFilter(frame_interval=1))}
    logs = sorted({path.stem for path in every.values()})
    whole, lists = tmp_path / "navtrain.yaml", tmp_path / "lists.yaml"
    settings = {"frame_interval": 1, "tokens": sorted(every), "log_names": logs}
    whole.write_text(yaml.safe_dump(settings))
    lists.write_text(yaml.safe_dump({"train_logs": logs[:4], "val_logs": logs[4:-1]}))
    gone = next(path for path in every.values() if path.stem == logs[0])
    gone.unlink()
    args = [str(whole), str(lists), "--data-root", str(split_root), "--split", "train"]
    assert split_scene_filter.main(args) == 1
    told = capfd.readouterr().err
    train = SceneFilter.from_yaml(split_root / "scene_filters/navtrain_train.yaml")
    assert sorted(train.log_names) == logs[:4]
    assert f"train: split train: 1 of 4 logs of the scene filter are not in {gone.parent}" in told
    assert f"has 1 logs of {whole} in neither list, the first is {logs[-1]}" in told
    lost = [token for token, path in every.items() if path.stem in (logs[0], logs[-1])]
    assert (
        f"{len(lost)} of {len(every)} tokens of {whole} are in neither part, the first is {min(lost)}" in told
    )
    whole.write_text("frame_interval: 1\n")  # (any log of the split)
    assert split_scene_filter.main(args) == 0
    assert "train: left out 1 of 4 logs of the list, which are not in split train" in capfd.readouterr().err
