# NAVSIM v1.1, camera planners. Layout of the data root (as NAVSIM's users have it; links will do):
#   navsim_logs/{trainval,test}/*.pkl   sensor_blobs/{trainval,test}/...   maps/
#   scene_filters/navtrain_{train,val}.yaml   NAVSIM's navtrain.yaml, cut by its train and val logs:
#                                             tools/split_scene_filter.py makes both
#   scene_filters/navtest.yaml                as NAVSIM ships it
# Make the caches once: tools/cache_features.py CONFIG and tools/cache_metrics.py CONFIG.
data_root = "data/navsim"
cache_root = "data/cache/navsim"

feature_pipeline = [
    dict(type="LoadCameraStitch", size=(256, 1024)),
    dict(type="EgoStatus"),
    dict(type="PlanTarget"),
    dict(type="AgentTargets"),
    dict(type="BEVMapTarget"),
]
_features = f"{cache_root}/features-camera"
_metrics = f"{cache_root}/metrics"

train_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="NavsimDataset",
        data_root=data_root,
        split="trainval",
        scene_filter=f"{data_root}/scene_filters/navtrain_train.yaml",
        feature_pipeline=feature_pipeline,
        pipeline=[dict(type="PackPlanInputs")],
        cache_dir=f"{_features}/navtrain_train",
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="NavsimDataset",
        data_root=data_root,
        split="trainval",
        scene_filter=f"{data_root}/scene_filters/navtrain_val.yaml",
        feature_pipeline=feature_pipeline,
        pipeline=[dict(type="PackPlanInputs")],
        cache_dir=f"{_features}/navtrain_val",
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="NavsimDataset",
        data_root=data_root,
        split="test",
        scene_filter=f"{data_root}/scene_filters/navtest.yaml",
        feature_pipeline=feature_pipeline,
        pipeline=[dict(type="PackPlanInputs")],
        cache_dir=f"{_features}/navtest",
    ),
)
val_evaluator = dict(
    type="PDMSMetric",
    split="trainval",
    cache_dir=f"{_metrics}/navtrain_val",
    data_root=data_root,
    num_workers=4,
)
test_evaluator = dict(
    type="PDMSMetric", split="test", cache_dir=f"{_metrics}/navtest", data_root=data_root, num_workers=4
)
