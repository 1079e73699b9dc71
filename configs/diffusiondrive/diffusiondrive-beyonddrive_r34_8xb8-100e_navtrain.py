# DiffusionDrive + BeyondDrive; 89.2 PDMS on navtest as published (METHOD, section 5), in full precision and
# with a schedule of its own. Repulsion 12 x 5 against attraction 12 x 8, after each of the two layers.
# The pool is made by beyonddrive mine with flow_policy_r34_8xb4-100e_navtrain.
_base_ = ["./diffusiondrive_r34_8xb64-100e_navtrain.py", "../_base_/negatives/pool.py"]

pool_dir = "${cache_root}/pools/navtrain_train"
model = dict(repulsion=dict(weight=12.0 * 5.0))
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(lr=2e-4), clip_grad=dict(_delete_=True, max_norm=50.0)
)
auto_scale_lr = dict(base_batch_size=64)
