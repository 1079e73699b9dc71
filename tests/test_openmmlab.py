"""The way to mmcv, mmdet and mmdet3d: their modules in our configs, ours in theirs, ops without kernels."""

import subprocess
import sys

import pytest
from torch import nn

from beyonddrive import openmmlab
from beyonddrive.openmmlab import CudaOnlyOpError, MMDet3DError
from beyonddrive.registry import MODELS

THEIRS = """
import sys
from mmengine.config import Config
from mmengine.registry import init_default_scope
config = Config.fromfile(sys.argv[1])
init_default_scope("mmdet3d")
from mmdet3d.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
assert TRANSFORMS.build(config.ours).__class__.__module__.startswith("beyonddrive.")
assert METRICS.build(config.metric).__class__.__module__.startswith("beyonddrive.")
assert "CenterPointHead" in str(MODELS.get("beyonddrive.CenterPointHead"))
assert DATASETS.get("beyonddrive.NavsimDataset") and HOOKS.get("beyonddrive.EpochSeedHook")
"""


@pytest.mark.parametrize("name", ["mmdet3d.SECOND", "mmdet.ResNet", "mmcv.ConvModule"])
def test_without_the_extra_a_scope_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv.ops", None)
    with pytest.raises(MMDet3DError, match=rf"{name.split('.')[0]} cannot be imported .*make mmdet3d"):
        MODELS.build({"type": name})


def test_without_the_extra_the_check_fails(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mmcv.ops", None)
    assert openmmlab.main() == 1
    assert "make mmdet3d" in capsys.readouterr().err


# ------------------------------------------------------------------ with the extra
def test_the_check_runs_an_op(mmdet3d, capsys):
    assert openmmlab.main() == 0
    assert "mmcv 2.1.0, mmdet 3.3.0, mmdet3d 1.4.0: an op of mmcv was run" in capsys.readouterr().out


SECOND = {
    "type": "mmdet3d.SECOND",
    "in_channels": 4,
    "out_channels": [4],
    "layer_nums": [1],
    "layer_strides": [1],
}


@pytest.mark.parametrize(
    ("settings", "module"),
    [
        (SECOND, "mmdet3d.models.backbones.second"),
        ({"type": "mmdet.ResNet", "depth": 18}, "mmdet.models.backbones.resnet"),
    ],
    ids=["mmdet3d", "mmdet"],
)
def test_modules_of_theirs_are_built_by_our_registry(mmdet3d, settings, module):
    assert type(MODELS.build(settings)).__module__ == module


def test_custom_imports_is_all_that_their_config_needs(mmdet3d, tmp_path):
    config = tmp_path / "theirs.py"
    config.write_text(
        "custom_imports = dict(imports=['beyonddrive'])\n"
        "ours = dict(type='beyonddrive.LoadPoints')\n"
        "metric = dict(type='beyonddrive.DetectionMetric')\n"
    )
    run = subprocess.run([sys.executable, "-c", THEIRS, config], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_ops_without_kernels_are_named_when_a_model_is_built(mmdet3d, monkeypatch):
    monkeypatch.setattr(openmmlab, "cuda_ops_missing", lambda: True)
    sparse = {"type": "mmdet3d.SparseEncoder", "in_channels": 4, "sparse_shape": [8, 16, 16]}
    with pytest.raises(CudaOnlyOpError, match="SparseEncoder: mmcv has these ops for CUDA only") as error:
        MODELS.build(sparse)
    for words in ("conv_input.0 needs SparseConvolution", "use pillars: PointPillarsScatter", "more"):
        assert words in str(error.value)
    dynamic = {
        "type": "mmdet3d.DynamicSimpleVFE",
        "voxel_size": (1, 1, 1),
        "point_cloud_range": (0, 0, 0, 4, 4, 4),
    }
    with pytest.raises(CudaOnlyOpError, match="scatter needs DynamicScatter: use hard voxels"):
        MODELS.build(dynamic)


def test_with_cuda_the_same_model_is_built(mmdet3d, monkeypatch):
    monkeypatch.setattr(openmmlab, "cuda_ops_missing", lambda: False)
    sparse = {"type": "mmdet3d.SparseEncoder", "in_channels": 4, "sparse_shape": [8, 16, 16]}
    assert isinstance(MODELS.build(sparse), nn.Module)


def test_every_op_that_is_named_exists(mmdet3d):
    for module, name in openmmlab.CUDA_ONLY:
        assert isinstance(getattr(openmmlab.import_module(module), name), type)
