# The nearest collision, the nearest plan off the road and the nearest that comes too close, each with its own
# share of the weight; the shares must sum to less than attraction weight / weight.
sub_scores = dict(
    loss=dict(column_weights=dict(NC=0.4, DAC=0.4, TTC=0.2), average="batch"),
    selection=dict(type="NearestNegativesPerColumn", columns=["NC", "DAC", "TTC"]),
)
