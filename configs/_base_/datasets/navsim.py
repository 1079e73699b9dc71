# NAVSIM v1.1, camera planners. Layout of the data root (as NAVSIM's users have it; links will do):
#   navsim_logs/{trainval,test}/*.pkl   sensor_blobs/{trainval,test}/...   maps/
#   scene_filters/navtrain_{train,val}.yaml   NAVSIM's navtrain.yaml, cut by its train and val logs:
#                                             beyonddrive split-scene-filter makes both
#   scene_filters/navtest.yaml                as NAVSIM ships it
# Make the caches once: beyonddrive cache-features CONFIG and beyonddrive cache-metrics CONFIG.
# A config that builds on this one, or --cfg-options on every tool, may set any of the next five anew:
# "${name}" stands for the value that name has in the end.
data_root = "data/navsim"
maps_root = "${data_root}/maps"
cache_root = "data/cache/navsim"
feature_cache = "${cache_root}/features-camera"
feature_pipeline = [
    dict(type="LoadCameraStitch", size=(256, 1024)),
    dict(type="EgoStatus"),
    dict(type="PlanTarget"),
    dict(type="AgentTargets"),
    dict(type="BEVMapTarget"),
]


def _scenes(split, name):
    return dict(
        type="NavsimDataset",
        data_root="${data_root}",
        maps_root="${maps_root}",
        split=split,
        scene_filter="${data_root}/scene_filters/" + f"{name}.yaml",
        feature_pipeline="${feature_pipeline}",
        pipeline=[dict(type="PackPlanInputs")],
        cache_dir="${feature_cache}/" + name,
    )


def _loader(dataset, **settings):
    sampler = dict(type="DefaultSampler", shuffle=False)
    return dict(batch_size=16, num_workers=8, sampler=sampler, dataset=dataset) | settings


def _score(split, name):
    return dict(
        type="PDMSMetric",
        split=split,
        cache_dir="${cache_root}/metrics/" + name,
        data_root="${data_root}",
        maps_root="${maps_root}",
        num_workers=4,
    )


train_dataloader = _loader(
    _scenes("trainval", "navtrain_train"),
    batch_size=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="RoundDownSampler", shuffle=True),
    collate_fn=dict(type="collate_samples"),
)
val_dataloader = _loader(_scenes("trainval", "navtrain_val"), persistent_workers=True)
test_dataloader = _loader(_scenes("test", "navtest"))
val_evaluator = _score("trainval", "navtrain_val")
test_evaluator = _score("test", "navtest")
