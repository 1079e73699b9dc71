# Control of sight: every camera image is that of another scene, in training, validation and test.
_shuffled = dict(type="ShuffledInputsDataset", shuffled=("camera",))

train_dataloader = dict(dataset=_shuffled)
val_dataloader = dict(dataset=_shuffled)
test_dataloader = dict(dataset=_shuffled)
