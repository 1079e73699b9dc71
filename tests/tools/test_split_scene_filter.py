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
