"""Scores: the PDM score and the metrics that mmengine runners call."""
