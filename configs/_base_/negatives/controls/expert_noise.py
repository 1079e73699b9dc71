# Control: no repulsion; the expert is moved as far as the hard negative is, anew in every step.
custom_hooks = [
    dict(type="EpochSeedHook"),
    dict(type="CheckpointGuardHook"),
    dict(type="ExpertPriorHook"),
    dict(type="ExpertNoiseHook"),
]
