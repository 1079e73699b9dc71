"""The metric of a basis in the place of those that a config names."""

import pytest
from mmengine.config import Config

from beyonddrive.engine.configs import ConfigError
from beyonddrive.evaluation.bases.evaluators import METRIC_BASES, basis_named, judge_on
from beyonddrive.evaluation.score_labels import LabelError
from beyonddrive.registry import METRICS

PDMS = {"type": "PDMSMetric", "split": "test", "cache_dir": "caches", "data_root": "data", "oracle": True}


@pytest.mark.parametrize("name", METRIC_BASES)
def test_the_metric_of_a_basis_says_that_it_is_of_it(name):
    config = Config({"test_evaluator": [{"type": "DetectionMetric"}, dict(PDMS, num_workers=3)]})
    judge_on(config, basis_named(name))
    metric = METRICS.build(config.test_evaluator)
    assert metric.basis.name == name
    assert (metric.scorer.split, metric.num_workers) == ("test", 3)
    cached = metric.scorer.cache_dir is not None
    assert cached == (metric.basis.traffic == "logged")  # no store holds traffic that reacts


def test_what_no_metric_can_judge_on_is_refused():
    with pytest.raises(LabelError, match="basis 'two-stage'; there are pdms, epdms, "):
        basis_named("two-stage")
    with pytest.raises(ConfigError, match="no metric that scores plans"):
        judge_on(Config({"test_evaluator": {"type": "DetectionMetric"}}), basis_named("epdms"))
