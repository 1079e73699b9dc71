# The test of a config on navsim.py, in the two stages of NAVSIM v2: put it behind the config of any planner,
# _base_ = ["my_planner.py", "beyonddrive::_base_/datasets/navhard.py"]. Inputs are those of the planner.
# Layout of the data root, as NAVSIM's downloads have it:
#   navsim_logs/ sensor_blobs/ maps/
#   train_test_split/navhard_two_stage.yaml                the table of pairs
#   train_test_split/scene_filter/navhard_two_stage.yaml   its scenes
#   navhard_two_stage/                                     synthetic_scene_pickles/ and sensor_blobs/
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
test_evaluator = dict(
    _delete_=True,  # a planner may have a list of metrics
    type="TwoStageMetric",
    data_root="${data_root}",
    maps_root="${maps_root}",
    num_workers=4,
    **_places,
)
