# The generated world (beyonddrive create-data synth), camera planners of tiny size.
# A sample read from the cache takes 0.1 ms and a plan is scored in less, so worker processes would only
# take cores from the training.
# Make the caches once: beyonddrive cache-features CONFIG and beyonddrive cache-metrics CONFIG.
# A config that builds on this one, or --cfg-options on every tool, may set any of the next five anew:
# "${name}" stands for the value that name has in the end.
data_root = "data/synth"
maps_root = "${data_root}/maps"
cache_root = "${data_root}/cache"
feature_cache = "${cache_root}/features-camera-64x256"
feature_pipeline = [
    dict(type="LoadCameraStitch", size=(64, 256)),
    dict(type="EgoStatus"),
    dict(type="PlanTarget"),
    dict(type="AgentTargets"),
    dict(type="BEVMapTarget"),
]


def _scenes(split):
    return dict(
        type="NavsimDataset",
        data_root="${data_root}",
        maps_root="${maps_root}",
        split=split,
        scene_filter="${data_root}/scene_filters/" + f"{split}.yaml",
        feature_pipeline="${feature_pipeline}",
        pipeline=[dict(type="PackPlanInputs")],
        cache_dir="${feature_cache}/" + split,
    )


def _loader(split, **settings):
    sampler = dict(type="DefaultSampler", shuffle=False)
    return dict(batch_size=16, num_workers=0, sampler=sampler, dataset=_scenes(split)) | settings


def _score(split):
    return dict(
        type="PDMSMetric",
        split=split,
        cache_dir="${cache_root}/metrics/" + split,
        data_root="${data_root}",
        maps_root="${maps_root}",
        num_workers=0,
    )


train_dataloader = _loader(
    "train",
    drop_last=True,
    sampler=dict(type="RoundDownSampler", shuffle=True),
    collate_fn=dict(type="collate_samples"),
)
val_dataloader = _loader("val")
test_dataloader = _loader("test")
val_evaluator = _score("val")
test_evaluator = _score("test")
