"""The generator with a pool of wider coverage: the farthest proposals of a mixture."""

_base_ = [
    "beyonddrive::flow_policy/flow_policy_tiny_1xb16-12e_synth.py",
    "beyonddrive::_base_/negatives/diverse.py",
]
