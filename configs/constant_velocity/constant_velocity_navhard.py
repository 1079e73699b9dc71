# Constant velocity in the two stages of NAVSIM v2. The same lines behind another _base_ judge another planner
# so, and with val_ for test_ while it is trained. Layout of the data root, as NAVSIM's downloads have it:
#   navsim_logs/ sensor_blobs/ maps/
#   train_test_split/navhard_two_stage.yaml                the table of pairs
#   train_test_split/scene_filter/navhard_two_stage.yaml   its scenes
#   navhard_two_stage/                                     synthetic_scene_pickles/ and sensor_blobs/
_base_ = "./constant_velocity_navtest.py"

_places = dict(
    split="test",  # the data_split of the table
    two_stage="${data_root}/train_test_split/navhard_two_stage.yaml",
    synthetic_scenes="${data_root}/navhard_two_stage/synthetic_scene_pickles",
    cache_dir=None,
)
test_dataloader = dict(
    dataset=dict(
        type="TwoStageDataset",
        scene_filter=None,
        synthetic_sensors="${data_root}/navhard_two_stage/sensor_blobs",
        **_places,
    )
)
test_evaluator = dict(type="TwoStageMetric", **_places)
