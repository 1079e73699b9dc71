# LTF* with BeyondDrive, its negatives joined every four epochs by failures of the planner itself.
# A store of metric caches of the training split (tools/cache_metrics.py), given to the hook as
# metric_cache_dir, spares every round the work on logs and maps.
_base_ = ["./ltf-beyonddrive_tiny_1xb16-12e_synth.py", "../_base_/negatives/online.py"]

_load = dict(_base_.train_dataloader.dataset.pipeline[0], **_base_.online.loader)
train_dataloader = dict(dataset=dict(pipeline=[_load, dict(type="PackPlanInputs")]))
custom_hooks = [*_base_.custom_hooks, dict(_base_.online.hook, num_workers=1)]
