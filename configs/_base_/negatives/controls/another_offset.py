# Control: repelled from this expert plus what lies between another scene's expert and its hard negative.
train_dataloader = dict(dataset=dict(negatives=dict(scene="offset")))
