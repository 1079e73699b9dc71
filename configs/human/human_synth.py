# What the driver did: an upper bound, not a planner.
_base_ = [
    "../_base_/datasets/synth_status.py",
    "../_base_/schedules/test_only.py",
    "../_base_/runtime/default.py",
]

model = dict(type="HumanReplay")
