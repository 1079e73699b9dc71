# MeanFuser + BeyondDrive; 90.3 PDMS on navtest as published (METHOD, section 5).
# The pool is made by beyonddrive mine with flow_policy_r34_8xb4-100e_navtrain.
_base_ = ["./meanfuser_r34_8xb4-100e_navtrain.py", "../_base_/negatives/pool.py"]

pool_dir = "${cache_root}/pools/navtrain_train"
model = dict(repulsion=dict(weight=1.5))
