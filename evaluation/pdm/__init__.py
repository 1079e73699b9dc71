"""NAVSIM's PDM score, natively: metric caches from logs and maps, and the score of plans.

>>> from beyonddrive.evaluation.pdm import MetricCache, PdmScores, build_metric_cache, score
"""

from beyonddrive.evaluation.pdm.cache.build import build_metric_cache
from beyonddrive.evaluation.pdm.cache.from_arrays import metric_cache_from_arrays
from beyonddrive.evaluation.pdm.cache.metric_cache import MetricCache, MetricCacheError
from beyonddrive.evaluation.pdm.explain.explanation import Explanation, Failure, explain
from beyonddrive.evaluation.pdm.scores.epdms import EPDMS_COLUMNS, EpdmsScores
from beyonddrive.evaluation.pdm.scores.pdms import PdmScores
from beyonddrive.evaluation.pdm.scores.scorer import score

__all__ = [
    "EPDMS_COLUMNS",
    "EpdmsScores",
    "Explanation",
    "Failure",
    "MetricCache",
    "MetricCacheError",
    "PdmScores",
    "build_metric_cache",
    "explain",
    "metric_cache_from_arrays",
    "score",
]
