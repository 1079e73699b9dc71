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


def _scenes(split):
    return dict(
        type="NavsimDataset",
        data_root=data_root,
        split=split,
        scene_filter=f"{data_root}/scene_filters/{split}.yaml",
        feature_pipeline=feature_pipeline,
        pipeline=[dict(type="PackPlanInputs")],
        cache_dir=f"{_features}/{split}",
    )


def _loader(split, **settings):
    sampler = dict(type="DefaultSampler", shuffle=False)
    return dict(batch_size=16, num_workers=0, sampler=sampler, dataset=_scenes(split)) | settings


def _score(split):
    cache_dir = f"{data_root}/cache/metrics/{split}"
    return dict(type="PDMSMetric", split=split, cache_dir=cache_dir, data_root=data_root, num_workers=0)


train_dataloader = _loader(
    "train",
    drop_last=True,
    sampler=dict(type="RoundDownSampler", shuffle=True),
    collate_fn=dict(type="pseudo_collate"),
)
val_dataloader = _loader("val")
test_dataloader = _loader("test")
val_evaluator = _score("val")
test_evaluator = _score("test")
