# For planners that learn how each plan of their vocabulary scores: the config names vocabulary and
# vocabulary_scores (beyonddrive build-vocabulary, beyonddrive score-vocabulary).
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(
                type="LoadVocabularyScores",
                store="${vocabulary_scores}",
                vocabulary="${vocabulary}",
                split="${train_dataloader.dataset.split}",
            ),
            dict(type="PackPlanInputs"),
        ]
    )
)
