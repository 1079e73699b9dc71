"""What is hidden from a planner is hidden wherever it plans."""

from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.transforms.status import PARTS, HideStatus
from beyonddrive.deploy.drivers import FrameInputs
from beyonddrive.deploy.drivers.self_test import made_up_frame
from beyonddrive.engine.config_check import check_config
from beyonddrive.engine.runner import load_config
from beyonddrive.generators.mining_job import mining_dataset

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_part_becomes_zero_and_nothing_else_changes(part):
    given = np.arange(1, 9, dtype=np.float32)
    made = HideStatus([part])({"token": "a", "status": given, "camera": None})
    assert given.tolist() == list(range(1, 9)) and made["status"].dtype == np.float32
    assert made["status"][PARTS[part]].tolist() == [0.0] * len(given[PARTS[part]])
    kept = [other for other in PARTS if not other.startswith(part) and not part.startswith(other)]
    for other in kept:
        np.testing.assert_array_equal(made["status"][PARTS[other]], given[PARTS[other]])
    assert not HideStatus(list(PARTS))({"status": given})["status"].any()


@pytest.mark.parametrize("parts", [[], "acceleration", ["speed"]])
def test_parts_that_are_not_there_are_refused(parts):
    with pytest.raises(ValueError, match="parts must be a list of command, velocity, acceleration"):
        HideStatus(parts)


def test_a_sample_without_status_is_refused():
    with pytest.raises(ValueError, match="there is no status"):
        HideStatus(["velocity"])({"token": "a"})


def test_the_base_hides_the_acceleration_in_all_splits_in_mining_and_behind_a_simulator(tmp_path):
    path = tmp_path / "told_less.py"
    bases = ["ltf/ltf_tiny_1xb16-12e_synth.py", "_base_/datasets/no_acceleration.py"]
    path.write_text(f"_base_ = {[str(CONFIGS / base) for base in bases]}\n")
    config = load_config(path)
    check_config(config)
    datasets = [config[f"{phase}_dataloader"].dataset for phase in ("train", "val", "test")]
    for dataset in [*datasets, mining_dataset(config)]:
        assert [step["type"] for step in dataset["pipeline"]] == ["HideStatus", "PackPlanInputs"]
    inputs = FrameInputs.from_config(config, "synth")
    frame = made_up_frame(inputs.rig, "s")
    frame.acceleration[:] = 1.5, -0.5
    told = inputs(frame, "t")["inputs"]["status"].numpy()
    np.testing.assert_array_equal(told, np.concatenate([frame.status[:6], [0.0, 0.0]]))
    assert frame.status[6:].tolist() == [1.5, -0.5]
