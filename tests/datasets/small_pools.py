"""Records of small pools of negatives: plans beside an expert that drives straight on."""

import numpy as np

from beyonddrive.datasets.stores.negative_pool import PoolDescription, hash_tokens

EXPERT = np.zeros((8, 3), np.float32)
EXPERT[:, 0] = np.arange(1, 9)


def describe(**changes):
    values = {
        "split": "train",
        "generator": {"name": "flow", "config_hash": "c0", "checkpoint_hash": "aa"},
        "strategy": {"type": "SamplingStrategy", "noise": 0.4},
        "seed": 0,
        "progress": "pair",
        "num_scenes": 3,
        "tokens_hash": hash_tokens(["far", "near", "safe"]),
        "shard_size": 2,
    }
    return PoolDescription(**{**values, **changes})


def record(pdms, sideways):
    """Plans beside the expert, by their sideways offsets, and their PDMS."""
    plans = np.repeat(EXPERT[None], len(pdms), 0)
    plans[:, :, 1] = np.asarray(sideways)[:, None]
    scores = np.ones((len(pdms), 7), np.float32)
    scores[:, 6] = pdms
    times = np.full(scores.shape, np.inf, np.float32)
    times[:, 6] = np.where(scores[:, 6] < 1.0, 1.0 + np.arange(len(pdms)), np.inf)
    return {"plans": plans, "scores": scores, "expert": EXPERT, "times": times}
