# The nearest collision, the nearest plan off the road and the nearest that comes too close, each with its own
# share of the weight; the shares must sum to less than attraction weight / weight.
model = dict(repulsion=dict(column_weights=dict(NC=0.4, DAC=0.4, TTC=0.2), average="batch"))
negative_selection = dict(_delete_=True, type="NearestNegativesPerColumn", columns=["NC", "DAC", "TTC"])
