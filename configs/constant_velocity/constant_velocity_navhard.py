# Constant velocity in the two stages of NAVSIM v2.
_base_ = ["./constant_velocity_navtest.py", "../_base_/datasets/navhard.py"]
