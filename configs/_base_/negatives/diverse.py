# Wider coverage for the same number of scored proposals: near, published and far samples, thinned to plans
# that are far from each other.
negative_mining = dict(
    strategy=dict(
        _delete_=True,
        type="FarthestPointSampling",
        num_proposals=64,
        base=dict(
            type="MixtureSampling",
            parts=[
                dict(type="SamplingStrategy", num_proposals=64, guidance=1.0, noise=0.2, steps=5),
                dict(type="SamplingStrategy", num_proposals=128, guidance=0.5, noise=0.4, steps=5),
                dict(type="SamplingStrategy", num_proposals=64, guidance=0.0, noise=0.6, steps=5),
            ],
        ),
    )
)
