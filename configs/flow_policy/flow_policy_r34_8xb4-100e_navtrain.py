# FlowPolicy, the generator of negatives; 87.0 PDMS on navtest as a planner, as published (METHOD, section 1).
_base_ = [
    "../_base_/models/flow_policy_r34.py",
    "../_base_/datasets/navsim.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/negatives/published.py",
    "../_base_/runtime/default.py",
]

optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = dict(warmup=2)
