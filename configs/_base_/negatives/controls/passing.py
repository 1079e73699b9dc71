# Control: repelled from plans at the distance of the hard negatives that pass the score.
negative_selection = dict(_delete_=True, type="PassingPlans", column="PDMS", threshold=0.6)
