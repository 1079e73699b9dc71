# Ablation: the failing proposal with the lowest score, of equal ones the farthest, in place of the nearest.
negative_selection = dict(_delete_=True, type="WorstNegatives", column="PDMS", threshold=0.6)
