# Ablation: any of the failing proposals in place of the nearest, the same one in every epoch.
negative_selection = dict(_delete_=True, type="RandomNegatives", column="PDMS", threshold=0.6)
