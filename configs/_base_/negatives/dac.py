# Ablation of one sub-score: only leaving the drivable area makes a negative (METHOD, section 3).
negative_selection = dict(column="DAC")
