"""What a run says of a GPU or a rank that is lost in a step, a validation or a test, and of what is none."""

import pytest
import torch
from mmengine.hooks import Hook

from beyonddrive.engine.hooks import ClosingHook
from beyonddrive.engine.runner import build_test_runner, build_train_runner, failures, load_config
from beyonddrive.engine.runner.failures import LostGpuError, LostRankError, is_lost_gpu, is_lost_peer

NCCL = "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1331, "
IN_THREAD = """Caught AcceleratorError in pin memory thread for device 0.
Original Traceback (most recent call last):
  File "torch/utils/data/_utils/pin_memory.py", line 41, in do_one_step
torch.AcceleratorError: CUDA error: unspecified launch failure
"""
ASYNCHRONOUS = (
    "\nDevice-side assertion tracking was not enabled by user; out of memory is not invalid argument."
)
OF_GPUS = [
    "CUDA error: an illegal memory access was encountered" + ASYNCHRONOUS,
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`",
    "CUDA driver error: unknown error",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":830, please report',
    "NVML_SUCCESS == DriverAPI::get()->nvmlInit_v2_() INTERNAL ASSERT FAILED at "
    '"../c10/cuda/CUDACachingAllocator.cpp":1123, please report',
    "Triton Error [CUDA]: an illegal memory access was encountered",
    IN_THREAD,
]
OF_OTHERS = [
    "this loss wants a GPU: CUDA error handling is off",
    "the planner got 'CUDA error: unknown error' as its command",
    "cuDNN is not what NVML_SUCCESS stands for",
    "CUDA out of memory. Tried to allocate 20.00 MiB",
    "CUDA error: out of memory",
    "CUDA error: device-side assert triggered" + ASYNCHRONOUS,
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA error: invalid device ordinal",
    "CUDA error: operation not permitted when stream is capturing",
    "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasGemmEx(handle)`",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
]


@pytest.mark.parametrize("text", OF_GPUS)
def test_what_torch_says_of_a_lost_gpu_is_known(text):
    assert is_lost_gpu(RuntimeError(text))


@pytest.mark.parametrize("text", OF_OTHERS)
def test_what_is_no_loss_of_a_gpu_is_left_as_it_is(text):
    assert not is_lost_gpu(RuntimeError(text))


@pytest.mark.parametrize(
    ("said", "gpu", "peer"),
    [
        ("unhandled cuda error\nncclUnhandledCudaError: ...\nCuda failure 999 'unknown error'", True, True),
        ("unhandled cuda error\nncclUnhandledCudaError: ...\nCuda failure 2 'out of memory'", False, False),
        ("unhandled system error\nncclSystemError: System call failed\nsocket closed", False, True),
        ("remote process exited or there was a network error\nncclRemoteError: ...", False, True),
        ("invalid usage\nncclInvalidUsage: ...\nDuplicate GPU detected : rank 1 and rank 0", False, False),
    ],
)
def test_nccl_tells_of_this_ranks_gpu_of_another_rank_or_of_a_mistake(said, gpu, peer):
    error = torch.distributed.DistBackendError(NCCL + said)
    assert (is_lost_gpu(error), is_lost_peer(error)) == (gpu, peer)


class Raises(Hook):
    """Raises an error at the fifth step, of the second epoch, or in a validation or test."""

    def __init__(self, place, error):
        self.place, self.error = place, error

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.place == "step" and runner.iter == 4:
            raise self.error

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.place == "validation" or (self.place == "validation in training" and runner.epoch == 2):
            raise self.error

    def before_test_iter(self, runner, batch_idx, data_batch=None):
        raise self.error


class Holds(ClosingHook):
    """Counts how often it is closed; may fail at it."""

    def __init__(self):
        self.times = 0

    def close(self):
        self.times += 1
        raise OSError("the socket is gone")


def runs(place, recipe, folder):
    """A runner, and what it is to do."""
    if place == "test":
        runner = build_test_runner(load_config(recipe), work_dir=str(folder / "w"))
        return runner, runner.test
    runner = build_train_runner(load_config(recipe), str(folder / "w"))
    return runner, runner.val if place == "validation" else runner.train


@pytest.mark.parametrize(
    ("place", "go_on"),
    [
        ("step", "go on with --resume {}/w/epoch_1.pth"),
        ("validation in training", "go on with --resume {}/w/epoch_2.pth"),
        ("validation", "an evaluation keeps nothing: start it again"),
        ("test", "an evaluation keeps nothing: start it again"),
    ],
)
def test_a_run_that_loses_a_gpu_or_a_rank_says_how_to_go_on(
    tmp_path, blind_recipe, monkeypatch, place, go_on
):
    runner, run = runs(place, blind_recipe, tmp_path)
    cause = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
    hook = Raises(place, cause)
    runner.register_hook(hook)
    with pytest.raises(LostGpuError, match=r"a GPU failed on rank 0 \(cuDNN error: .*nvidia-smi") as failure:
        run()
    assert str(failure.value).endswith(go_on.format(tmp_path)) and failure.value.__cause__ is cause
    if place in ("validation", "test"):
        monkeypatch.setattr(failures, "get_world_size", lambda: 2)
        hook.error = RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:33456")
        with pytest.raises(LostRankError, match="rank 0 of 2 hears nothing of another rank") as failure:
            run()
        assert str(failure.value).endswith(go_on) and failure.value.__cause__ is hook.error


@pytest.mark.parametrize("place", ["step", "validation", "test"])
def test_an_error_that_merely_speaks_of_a_gpu_is_raised_as_it_is(tmp_path, blind_recipe, place):
    runner, run = runs(place, blind_recipe, tmp_path)
    error = RuntimeError("this loss wants a GPU: CUDA error handling is off")
    runner.register_hook(Raises(place, error))
    with pytest.raises(RuntimeError) as failure:
        run()
    assert failure.value is error


@pytest.mark.parametrize("error", [ValueError("a bad step"), KeyboardInterrupt()])
def test_what_hooks_hold_is_given_back_when_a_training_fails(tmp_path, blind_recipe, caplog, error):
    runner, run = runs("step", blind_recipe, tmp_path)
    holds = Holds()
    runner.register_hook(Raises("step", error))
    runner.register_hook(holds)
    with pytest.raises(type(error)) as failure:
        run()
    assert failure.value is error and holds.times == 1  # by the runner, though the hook could not
    (log,) = (tmp_path / "w").glob("*/*.log")
    assert "Holds: could not be closed: the socket is gone" in log.read_text()


def test_what_does_not_fit_is_named_with_its_place_in_the_planner(tmp_path, blind_recipe):
    """Torch says which shapes cannot be multiplied, and the traceback shows code that many layers share."""
    runner = build_train_runner(load_config(blind_recipe), str(tmp_path / "w"))
    name, layer = next(item for item in runner.model.named_modules() if isinstance(item[1], torch.nn.Linear))
    layer.weight = torch.nn.Parameter(layer.weight[:, 1:])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as told:
        runner.train()
    assert told.value.__notes__ == [f"in model.{name}: Linear({layer.extra_repr()})"]


def test_a_part_that_cannot_describe_itself_hides_no_error(tmp_path, blind_recipe):
    runner = build_train_runner(load_config(blind_recipe), str(tmp_path / "w"))
    name, layer = next(item for item in runner.model.named_modules() if isinstance(item[1], torch.nn.Linear))
    layer.weight = torch.nn.Parameter(layer.weight[:, 1:])
    layer.extra_repr = lambda: f"{layer.no_such_attribute}"
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as told:
        runner.train()
    assert told.value.__notes__ == [f"in model.{name}: Linear(...)"]


def test_a_part_has_the_name_that_a_config_knows_also_when_wrapped():
    class Planner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 2)})

        def forward(self, inputs):
            if not len(inputs):
                raise RuntimeError("there are no scenes")
            return self.module["head"](inputs)

    def told(model, inputs):
        with pytest.raises(RuntimeError) as raised:
            model(inputs)
        failures._name_part(model, raised.value)
        return getattr(raised.value, "__notes__", [])

    for model in (Planner(), torch.nn.DataParallel(Planner())):
        (note,) = told(model, torch.zeros(1, 3))
        assert note.startswith("in model.module.head: Linear(in_features=2")
        assert told(model, torch.zeros(0)) == []  # (the planner itself is no part of it)
