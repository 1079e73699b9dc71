# Control: repelled from the hard negatives of another scene, as they are.
train_dataloader = dict(dataset=dict(negatives=dict(scene="another")))
