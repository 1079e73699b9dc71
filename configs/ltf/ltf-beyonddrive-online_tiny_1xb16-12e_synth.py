# LTF* with BeyondDrive, its negatives joined every four epochs by failures of the planner itself.
# A store of metric caches of the training split (beyonddrive cache-metrics), given to the hook as
# metric_cache_dir, spares every round the work on logs and maps.
_base_ = ["./ltf-beyonddrive_tiny_1xb16-12e_synth.py", "../_base_/negatives/online.py"]

default_hooks = dict(online_negatives=dict(num_workers=1))
