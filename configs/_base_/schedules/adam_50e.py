# Published recipe of the ego-status MLP in NAVSIM v1.1: that of its other planners, half as long.
_base_ = "./adam_100e.py"

train_cfg = dict(max_epochs=50)
