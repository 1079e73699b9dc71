# TransFuser on pillars of the raw sweep, with the schedule of LTF*; needs mmdet3d, see docs/mmdet3d.md
_base_ = [
    "../_base_/models/transfuser-pillars_r34.py",
    "../_base_/datasets/navsim.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/runtime/default.py",
]

feature_pipeline = [
    dict(type="LoadCameraStitch", size=(256, 1024)),
    dict(type="LoadPoints", max_points=60_000),
    dict(type="EgoStatus"),
    dict(type="PlanTarget"),
    dict(type="AgentTargets"),
    dict(type="BEVMapTarget"),
]
_features = "data/cache/navsim/features-camera-points"
train_dataloader = dict(
    dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/navtrain_train")
)
val_dataloader = dict(dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/navtrain_val"))
test_dataloader = dict(dataset=dict(feature_pipeline=feature_pipeline, cache_dir=f"{_features}/navtest"))
