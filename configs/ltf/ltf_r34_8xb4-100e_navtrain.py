# LTF (NAVSIM v1.1 network: absolute poses, agent and BEV losses) with the schedule of LTF*.
_base_ = [
    "../_base_/models/ltf_r34.py",
    "../_base_/datasets/navsim.py",
    "../_base_/schedules/adamw_100e.py",
    "../_base_/runtime/default.py",
]
