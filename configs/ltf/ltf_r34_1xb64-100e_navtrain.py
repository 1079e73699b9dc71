# LTF as in NAVSIM v1.1 (MODELS, sections 3 and 10): absolute poses, agent and BEV losses; 83.8 PDMS on
# navtest as published (METHOD, section 5). 64 scenes per process; how many processes is not published.
_base_ = [
    "../_base_/models/ltf_r34.py",
    "../_base_/datasets/navsim.py",
    "../_base_/schedules/adam_100e.py",
    "../_base_/runtime/default.py",
]
train_dataloader = dict(batch_size=64)
