# Every mode of a multi-modal planner keeps half the expert's distance from the failure, not only its best.
model = dict(repulsion=dict(mode_loss=dict(weight=5.0, margin=0.5, margin_unit="expert")))
