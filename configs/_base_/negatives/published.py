# Hard negatives as published (METHOD, sections 2 and 3), scored as the benchmark scores: how a generator
# mines them (beyonddrive mine reads negative_mining), and which of them count.
negative_mining = dict(
    strategy=dict(type="SamplingStrategy", num_proposals=64, guidance=0.5, noise=0.4, steps=5),
    # "pair" normalises the progress of each proposal against the PDM reference alone.
    progress="pair",
    seed=0,
    shard_size=64,
)
negative_selection = dict(type="NearestNegatives", column="PDMS", threshold=0.6, num=1, distance="wrapped")
