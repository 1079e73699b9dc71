# LTFv7 = LTF* + BeyondDrive; 89.7 to 89.8 PDMS on navtest as published (METHOD, section 5).
# The pool is made by beyonddrive mine with flow_policy_r34_8xb4-100e_navtrain.
_base_ = ["./ltf-delta_r34_8xb4-100e_navtrain.py", "../_base_/negatives/pool.py"]

pool_dir = "${cache_root}/pools/navtrain_train"
model = dict(repulsion=dict(weight=5.0))
