# The same MeanFuser with BeyondDrive: its reconstructed plan repelled from the hard negatives of a pool.
# The pool is made by beyonddrive mine with flow_policy_tiny_1xb16-12e_synth.
_base_ = ["./meanfuser_tiny_1xb16-12e_synth.py", "../_base_/negatives/pool.py"]

pool_dir = "${data_root}/pool/train"
model = dict(repulsion=dict(weight=1.5))
