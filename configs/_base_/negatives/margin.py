# Bounded: a plan is repelled only while it is nearer to the failure than twice the expert's distance to it.
model = dict(repulsion=dict(margin=2.0, margin_unit="expert", average="batch"))
