"""A planner of BeyondDrive as an agent of NAVSIM's devkit, v1.1 and v2 (SUBMISSION, sections 3 to 5).

This file goes into the devkit's Python, 3.9 with numpy 1.23 or newer, without the suite: it imports numpy,
torch and the devkit only. ``beyonddrive export CONFIG CHECKPOINT FOLDER --navsim-agent`` puts it into a
folder with what else an agent needs: ``agent.json`` (inputs), ``planner.onnx``, ``config.py`` and
``weights.pth``, and hydra's ``v1.1/agent/beyonddrive.yaml`` and ``v2/agent/beyonddrive.yaml``. The planner
runs in one of three ways:

- ``onnx``: by onnxruntime, from ``planner.onnx``;
- ``worker``: in a process of another interpreter, which has the suite; numpy and torch of the two never meet;
- ``process``: in this process, where the suite has to be installed beside the devkit.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import struct
import subprocess
import threading
import zlib
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import torch

try:
    from navsim.agents.abstract_agent import AbstractAgent
    from navsim.common.dataclasses import SensorConfig, Trajectory
    from navsim.planning.training.abstract_feature_target_builder import (
        AbstractFeatureBuilder,
        AbstractTargetBuilder,
    )

    HAS_DEVKIT = True
except ModuleNotFoundError as error:
    if str(error.name).split(".")[0] != "navsim":
        raise
    # The features and the three ways to run need no devkit; the agent does.
    HAS_DEVKIT = False
    AbstractAgent = torch.nn.Module
    AbstractFeatureBuilder = AbstractTargetBuilder = object
    SensorConfig = Trajectory = None

NUM_POSES, INTERVAL = 8, 0.5
FORMAT = 3
"""Of ``agent.json``; raised whenever its content changes."""
CAMERAS = ("cam_l0", "cam_f0", "cam_r0")
"""From left to right."""
CROP_ROWS, CROP_COLUMNS = 28 / 1080, 416 / 1920
NOW = 3
"""Index of the current entry of an input."""


class AgentError(RuntimeError):
    """The planner cannot run, or gives no plan; the message says why and what to do."""


class BeyondDriveAgent(AbstractAgent):
    """A planner of BeyondDrive.

    Args:
        folder: Made by ``beyonddrive export --navsim-agent``; the one of this file if None.
        run: ``onnx``, ``worker`` or ``process``.
        interpreter: Python of the worker, in whose environment the suite is installed.
        trajectory_sampling: Of v2; must be 4 s in steps of 0.5 s.
        requires_scene: Must be false.
    """

    def __init__(
        self,
        folder: Optional[str] = None,
        run: str = "onnx",
        interpreter: Optional[str] = None,
        trajectory_sampling: Any = None,
        requires_scene: bool = False,
    ) -> None:
        if not HAS_DEVKIT:
            raise AgentError("the devkit (navsim.agents, navsim.common) is not installed in this environment")
        if "trajectory_sampling" in inspect.signature(AbstractAgent.__init__).parameters:
            super().__init__(trajectory_sampling=trajectory_sampling)
        else:
            super().__init__()
        if requires_scene:
            raise AgentError("requires_scene: this agent plans from its input alone; leave it out")
        if run not in ("onnx", "worker", "process"):
            raise AgentError("run must be onnx, worker or process, got {!r}".format(run))
        if run == "worker" and not interpreter:
            raise AgentError("run=worker needs interpreter, the Python in which beyonddrive is installed")
        _check_sampling(trajectory_sampling)
        self.folder = Path(folder) if folder else Path(__file__).resolve().parent
        self.features = read_settings(self.folder)
        self._sampling = trajectory_sampling
        self._run, self._interpreter = run, interpreter
        self._planner = None  # type: Any

    def name(self) -> str:
        """What it is called."""
        return "BeyondDrive {}".format(self.features["planner"])

    def get_sensor_config(self) -> Any:
        """Three front cameras and the sweep of now, as far as the planner reads them."""
        config = SensorConfig.build_no_sensors()
        inputs = self.features["inputs"]
        for name in CAMERAS if "camera" in inputs else ():
            setattr(config, name, [NOW])
        if "lidar" in inputs:
            config.lidar_pc = [NOW]
        return config

    def initialize(self) -> None:
        """Load the planner; once per worker of the devkit."""
        if self._planner is None:
            if self._run == "onnx":
                self._planner = OnnxPlanner(self.folder, self.features)
            elif self._run == "worker":
                self._planner = WorkerPlanner(self.folder, self.features, str(self._interpreter))
            else:
                self._planner = process_planner(self.folder, self.features)

    def get_feature_builders(self) -> List[Any]:
        """The planner's inputs."""
        return [BeyondDriveFeatureBuilder(self.features)]

    def get_target_builders(self) -> List[Any]:
        """The driver's plan, and the vehicles around."""
        return [BeyondDriveTargetBuilder(self.features)]

    def forward(self, features: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """Batched features in, ``trajectory`` (B, 8, 3) out, on the CPU."""
        self.initialize()
        arrays = {name: value.detach().cpu().numpy() for name, value in features.items()}
        rows = [
            self._planner({name: array[row : row + 1] for name, array in arrays.items()})
            for row in range(len(arrays["status"]))
        ]
        return {"trajectory": torch.from_numpy(np.concatenate(rows))}

    def compute_trajectory(self, agent_input: Any) -> Any:
        """The plan for an input.

        Raises:
            AgentError: If the planner gives another shape, or NaN: with a scene missing there is no score.
        """
        features = BeyondDriveFeatureBuilder(self.features).compute_features(agent_input)
        batch = {name: value.unsqueeze(0) for name, value in features.items()}
        poses = np.array(self.forward(batch)["trajectory"][0].numpy(), dtype=np.float32)
        if poses.shape != (NUM_POSES, 3) or not np.isfinite(poses).all():
            raise AgentError(
                "{} gives a plan {} with NaN or of another shape than (8, 3)".format(self.name(), poses.shape)
            )
        return Trajectory(poses) if self._sampling is None else Trajectory(poses, self._sampling)

    def compute_loss(self, features: Any, targets: Any, predictions: Any) -> Any:
        """Refuse: planners are trained by the suite."""
        raise AgentError("this agent plans only: train its planner by beyonddrive train and export it again")


def read_settings(folder: Path) -> Dict[str, Any]:
    """Settings of the features of a planner, from the folder that the export has made."""
    path = Path(folder) / "agent.json"
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AgentError(
            "{}: cannot be read ({}); make the folder by: beyonddrive export CONFIG CHECKPOINT {} "
            "--navsim-agent".format(path, error, folder)
        ) from None
    if settings.get("format") != FORMAT:
        raise AgentError(
            "{}: has format {}, this module reads {}: take both from one export".format(
                path, settings.get("format"), FORMAT
            )
        )
    return settings


def _check_sampling(sampling: Any) -> None:
    if sampling is None:
        return
    count, interval = sampling.num_poses, sampling.interval_length
    if count != NUM_POSES or abs(interval - INTERVAL) > 1e-6:
        raise AgentError(
            "trajectory_sampling: the planner gives {} poses every {} s, got {} every {} s; set "
            "time_horizon: 4, interval_length: 0.5".format(NUM_POSES, INTERVAL, count, interval)
        )


# ------------------------------------------------------------------ features
class BeyondDriveFeatureBuilder(AbstractFeatureBuilder):
    """The inputs of a planner, as the suite makes them of the same scene.

    Args:
        settings: Content of ``agent.json``.
    """

    def __init__(self, settings: Dict[str, Any]) -> None:
        self.settings = settings

    def get_unique_name(self) -> str:
        """Name of the cache: other settings have another."""
        text = json.dumps(self.settings["inputs"], sort_keys=True)
        return "beyonddrive_{:08x}".format(zlib.crc32(text.encode()))

    def compute_features(self, agent_input: Any) -> Dict[str, torch.Tensor]:
        """Tensors by name: status (8,), camera uint8 (3, H, W), lidar (C, h, w)."""
        inputs = self.settings["inputs"]
        made = {"status": ego_status(agent_input.ego_statuses[-1])}
        # What training has hidden, and what a lossy cache has lost, are no inputs here either.
        made["status"][inputs.get("status", {}).get("hidden", [])] = 0
        if "camera" in inputs:
            made["camera"] = stitch(agent_input.cameras[-1], inputs["camera"]["size"])
            if "encoding" in inputs["camera"]:
                made["camera"] = lossy_image(made["camera"], **inputs["camera"]["encoding"])
        if "lidar" in inputs:
            made["lidar"] = histogram(agent_input.lidars[-1].lidar_pc, **inputs["lidar"])
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in made.items()}


def ego_status(status: Any) -> np.ndarray:
    """(8,) float32: driving command, vx, vy [m/s], ax, ay [m/s2]."""
    parts = (status.driving_command, status.ego_velocity, status.ego_acceleration)
    return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])


def stitch(cameras: Any, size: List[int]) -> np.ndarray:
    """Left, front and right image, cropped and side by side: uint8 (3, H, W)."""
    import cv2

    images = [getattr(cameras, name).image for name in CAMERAS]
    if any(image is None for image in images) or len({image.shape for image in images}) != 1:
        raise AgentError("the images of {} are missing or differ in size".format(", ".join(CAMERAS)))
    height, width = images[0].shape[:2]
    rows, columns = round(CROP_ROWS * height), round(CROP_COLUMNS * width)
    outer = (slice(rows, height - rows), slice(columns, width - columns))
    strip = np.concatenate([images[0][outer], images[1][rows : height - rows], images[2][outer]], axis=1)
    resized = cv2.resize(strip, (int(size[1]), int(size[0])), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.moveaxis(resized, -1, 0), dtype=np.uint8)


def lossy_image(image: np.ndarray, format: str, quality: int) -> np.ndarray:
    """What a lossy picture, ``jpeg`` or ``webp``, keeps of an image: uint8 (3, H, W)."""
    import cv2

    suffix, option = {
        "jpeg": (".jpg", cv2.IMWRITE_JPEG_QUALITY),
        "webp": (".webp", cv2.IMWRITE_WEBP_QUALITY),
    }[format]
    pixels = np.ascontiguousarray(np.moveaxis(image, 0, -1)[..., ::-1])
    done, data = cv2.imencode(suffix, pixels, [option, int(quality)])
    if not done:
        raise AgentError("this OpenCV cannot write {}, which the images of training were".format(format))
    read = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(np.moveaxis(read[..., ::-1], -1, 0))


def histogram(
    sweep: Any,
    extent: float,
    size: int,
    split_height: float,
    max_height: float,
    max_count: int,
    use_ground_plane: bool,
) -> np.ndarray:
    """Points (6, N) of a sweep -> float32 (C, size, size) counts per cell, capped and scaled to [0, 1]."""
    if sweep is None:
        raise AgentError("the sweep of now is missing: follow-up scenes have none; use a camera planner")
    points = np.asarray(sweep)[:3]
    points = points[:, points[2] < max_height]
    ground = points[2] <= split_height
    channels = [points[:2, ~ground]]
    if use_ground_plane:
        channels.insert(0, points[:2, ground])
    edges = np.linspace(-extent, extent, size + 1)
    counted = []
    for xy in channels:
        cells = np.searchsorted(edges, xy.astype(np.float64), side="right") - 1
        cells[xy == extent] = size - 1  # the last cell is closed
        row, column = cells[:, ((cells >= 0) & (cells < size)).all(axis=0)]
        counts = np.bincount(row * size + column, minlength=size**2)
        counted.append(np.minimum(counts, max_count).astype(np.float32) / np.float32(max_count))
    return np.stack(counted).reshape(-1, size, size)


class BeyondDriveTargetBuilder(AbstractTargetBuilder):
    """What the suite trains on, as far as a scene of the devkit has it without the map.

    Args:
        settings: Content of ``agent.json``.
    """

    def __init__(self, settings: Dict[str, Any]) -> None:
        self.num_agents = int(settings["targets"]["num_agents"])
        self.extent = float(settings["targets"]["extent"])

    def get_unique_name(self) -> str:
        """Name of the cache: other settings have another."""
        return "beyonddrive_targets_{}_{:g}".format(self.num_agents, self.extent)

    def compute_targets(self, scene: Any) -> Dict[str, torch.Tensor]:
        """``trajectory`` (8, 3), ``agent_states`` (A, 5), ``agent_labels`` (A,): the nearest A vehicles."""
        plan = scene.get_future_trajectory(num_trajectory_frames=NUM_POSES).poses
        annotations = scene.frames[NOW].annotations
        vehicle = np.array([name == "vehicle" for name in annotations.names], dtype=bool)
        boxes = np.asarray(annotations.boxes, dtype=np.float64).astype(np.float32).reshape(-1, 7)
        boxes = boxes[vehicle][:, [0, 1, 6, 3, 4]]
        boxes = boxes[(np.abs(boxes[:, :2]) <= self.extent).all(axis=1)]
        nearest = np.argsort(np.linalg.norm(boxes[:, :2], axis=1), kind="stable")[: self.num_agents]
        states = np.zeros((self.num_agents, 5), np.float32)
        states[: len(nearest)] = boxes[nearest]
        return {
            "trajectory": torch.from_numpy(np.asarray(plan, dtype=np.float32)),
            "agent_states": torch.from_numpy(states),
            "agent_labels": torch.from_numpy(np.arange(self.num_agents) < len(nearest)),
        }


# ------------------------------------------------------------------ three ways to run
def noise_of(settings: Dict[str, Any], status: np.ndarray) -> Optional[np.ndarray]:
    """Standard-normal noise (1, P, ...) that a sampling planner starts from; None for other planners.

    An input does not say which scene it is of, so the noise depends on the ego status: the same scene has the
    same noise wherever it is planned for.
    """
    noise = settings.get("noise")
    if noise is None:
        return None
    key = "{}/{}".format(noise["seed"], np.ascontiguousarray(status, dtype="<f4").tobytes().hex())
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return torch.randn([1, *noise["shape"]], generator=generator).numpy()


def _prepared(settings: Dict[str, Any], arrays: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Inputs of one scene as the planner takes them, by name and in its order."""
    made = {name: np.asarray(value) for name, value in arrays.items()}
    if "camera" in made and made["camera"].dtype == np.uint8:
        made["camera"] = made["camera"].astype(np.float32) / np.float32(255)
    noise = noise_of(settings, made["status"])
    if noise is not None:
        made["noise"] = noise
    return {name: np.ascontiguousarray(made[name], dtype=np.float32) for name in settings["order"]}


class OnnxPlanner:
    """``planner.onnx`` by onnxruntime."""

    def __init__(self, folder: Path, settings: Dict[str, Any]) -> None:
        path = folder / "planner.onnx"
        if not path.is_file():
            raise AgentError("{}: is not there: the export left it out; use run=worker".format(path))
        try:
            from onnxruntime import InferenceSession
        except ImportError:
            raise AgentError("run=onnx needs onnxruntime: pip install onnxruntime, or run=worker") from None
        self.settings = settings
        self.session = InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, arrays: Dict[str, np.ndarray]) -> np.ndarray:
        """Plan (1, 8, 3)."""
        return self.session.run(["trajectory"], _prepared(self.settings, arrays))[0]


def process_planner(folder: Path, settings: Dict[str, Any]) -> Any:
    """The planner in this process; the suite has to be installed here."""
    module, name = settings["loader"].split(":")
    try:
        load = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise AgentError(
            "run=process needs the suite in this environment ({}): pip install beyonddrive, or run=worker or "
            "run=onnx".format(error)
        ) from error
    planner = load(folder)
    return lambda arrays: planner(_prepared(settings, arrays))


class WorkerPlanner:
    """The planner in a process of another interpreter; arrays go through pipes, as header and bytes."""

    def __init__(self, folder: Path, settings: Dict[str, Any], interpreter: str) -> None:
        self.settings, self.interpreter = settings, interpreter
        self.lock = threading.Lock()
        # What leads this interpreter to its packages must not lead the other one to them.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        module = settings["loader"].split(":")[0]
        try:
            self.process = subprocess.Popen(
                [interpreter, "-m", module, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            raise AgentError("interpreter {}: cannot be started ({})".format(interpreter, error)) from error
        self._receive()  # (that it is ready)

    def __call__(self, arrays: Dict[str, np.ndarray]) -> np.ndarray:
        """Plan (1, 8, 3)."""
        with self.lock:
            try:
                write_arrays(self.process.stdin, _prepared(self.settings, arrays))
            except OSError:
                pass  # (why it has ended is said below)
            return self._receive()["trajectory"]

    def _receive(self) -> Dict[str, np.ndarray]:
        answer = read_arrays(self.process.stdout)
        if answer is None:
            code = self.process.wait()
            raise AgentError(
                "the worker of {} ended (exit code {}); what it said is above; beyonddrive has to be "
                "installed in its environment".format(self.interpreter, code)
            )
        if isinstance(answer, str):
            raise AgentError("the worker of {}: {}".format(self.interpreter, answer))
        return answer

    def close(self) -> None:
        """End the worker."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait()

    def __del__(self) -> None:
        if getattr(self, "process", None) is not None and self.process.poll() is None:
            self.close()

    def __getstate__(self) -> Dict[str, Any]:
        raise AgentError(
            "an agent that has a worker cannot be copied to another process: initialize it there"
        )


def write_arrays(pipe: Any, arrays: Dict[str, np.ndarray], error: str = "") -> None:
    """Write a message: its length, a header, then the bytes of each array; or an error."""
    parts = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in parts.items()]
    header = json.dumps({"arrays": described, "error": error}).encode()
    pipe.write(
        struct.pack("<I", len(header)) + header + b"".join(array.tobytes() for array in parts.values())
    )
    pipe.flush()


def read_arrays(pipe: Any) -> Any:
    """Read a message: arrays by name, a text if it is an error, None at the end."""
    size = pipe.read(4)
    if len(size) < 4:
        return None
    header = json.loads(pipe.read(struct.unpack("<I", size)[0]))
    if header["error"]:
        return header["error"]
    arrays = {}
    for name, kind, shape in header["arrays"]:
        dtype = np.dtype(kind)
        data = pipe.read(dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
        arrays[name] = np.frombuffer(data, dtype=dtype).reshape(shape).copy()
    return arrays
