# One negative for each way to fail: collision, off-road, time to collision.
_base_ = "published.py"

negative_selection = dict(
    _delete_=True,
    type="NearestNegativesPerColumn",
    columns=["NC", "DAC", "TTC"],
    threshold=0.6,
    num=1,
    distance="wrapped",
)
