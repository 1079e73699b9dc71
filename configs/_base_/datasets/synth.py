# The generated world (tools/create_data.py synth), camera planners of tiny size.
# A sample read from the cache takes 0.1 ms and a plan is scored in less, so worker processes would only
# take cores from the training.
# Make the caches once: tools/cache_features.py CONFIG and tools/cache_metrics.py CONFIG.
data_root = "data/synth"

feature_pipeline = [
    dict(type="LoadCameraStitch", size=(64, 256)),
    dict(type="EgoStatus"),
    dict(type="PlanTarget"),
    dict(type="AgentTargets"),
    dict(type="BEVMapTarget"),
]
_features = f"{data_root}/cache/features-camera-64x256"
_metrics = f"{data_root}/cache/metrics"

train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="NavsimDataset",
        data_root=data_root,
        split="train",
        scene_filter=f"{data_root}/scene_filters/train.yaml",
        feature_pipeline=feature_pipeline,
        pipeline=[dict(type="PackPlanInputs")],
        cache_dir=f"{_features}/train",
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="NavsimDataset",
        data_root=data_root,
        split="val",
        scene_filter=f"{data_root}/scene_filters/val.yaml",
        feature_pipeline=feature_pipeline,
        pipeline=[dict(type="PackPlanInputs")],
        cache_dir=f"{_features}/val",
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="NavsimDataset",
        data_root=data_root,
        split="test",
        scene_filter=f"{data_root}/scene_filters/test.yaml",
        feature_pipeline=feature_pipeline,
        pipeline=[dict(type="PackPlanInputs")],
        cache_dir=f"{_features}/test",
    ),
)
val_evaluator = dict(
    type="PDMSMetric", split="val", cache_dir=f"{_metrics}/val", data_root=data_root, num_workers=0
)
test_evaluator = dict(
    type="PDMSMetric", split="test", cache_dir=f"{_metrics}/test", data_root=data_root, num_workers=0
)
