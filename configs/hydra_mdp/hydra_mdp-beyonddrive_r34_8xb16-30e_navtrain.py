# The vocabulary planner with BeyondDrive: its expected plan repelled from the hard negatives of a pool.
# The pool is made by beyonddrive mine with flow_policy_r34_8xb4-100e_navtrain.
_base_ = ["./hydra_mdp_r34_8xb16-30e_navtrain.py", "../_base_/negatives/pool.py"]

pool_dir = "${cache_root}/pools/navtrain_train"
model = dict(repulsion=dict(weight=0.5))
