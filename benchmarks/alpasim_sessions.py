"""Do eight AlpaSim sessions on two cores hold 10 Hz: ``python benchmarks/alpasim_sessions.py``.

A server of the driver runs in a process of its own with the tiny LTF, weights as they are initialised, which
costs the same. Eight clients in this process send, every 100 ms of their own clock, an ego pose and three
JPEG images and ask for a plan, as the runtime does at 10 Hz. Printed: the rate of the slowest session
against the 10 Hz that are asked for, how long a step took, the share of steps beyond 100 ms, and the
processor time that the server and the clients spent on a plan: it says how many cores the sessions need at
10 Hz, also where other programs keep them from getting it.
The images are made before the clock starts. ``--full-decode`` decodes images as large as they are: the
alternative that decoding as fine as the planner's strip needs them is measured against. ``--planner`` drives
the planner as it is, its fast copy, or the ONNX file that ``beyonddrive export`` makes of it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import grpc
import numpy as np
from carla_driver_interface import protocol as wire
from carla_driver_interface.geometry import Pose
from carla_driver_interface.server import serving
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from beyonddrive.datasets.transforms.strip_rig import CAMERAS, SIZE, synth_rig
from beyonddrive.deploy.drivers.alpasim_cameras import decoded_image

STEP_US = 100_000


PLANNERS = ("eager", "fast", "onnx")


def engine_of(planner: Any, kind: str) -> Any:
    """The planner as one of :data:`PLANNERS`."""
    from beyonddrive.deploy import ExportedPlanner
    from beyonddrive.deploy.drivers import GraphEngine, ModuleEngine
    from beyonddrive.deploy.graph import PlannerGraph, write_graph

    if kind != "onnx":
        return ModuleEngine(ExportedPlanner(planner) if kind == "fast" else planner)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "planner.onnx")
        write_graph(PlannerGraph(planner), path, 1)
        return GraphEngine(path, planner)


def serve(pipe: Any, config: str, full_decode: bool, kind: str) -> None:
    """The server's process; whenever it is asked it tells its processor time."""
    import torch

    from beyonddrive.apis import load_config
    from beyonddrive.deploy.drivers import FrameInputs, PlannerDriver
    from beyonddrive.deploy.drivers.alpasim import AlpasimDriver, AlpasimSettings
    from beyonddrive.deploy.drivers.self_test import warm_up
    from beyonddrive.registry import MODELS

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    loaded = load_config(config)
    engine = engine_of(MODELS.build(loaded.model).eval(), kind)
    driver = PlannerDriver(engine, FrameInputs.from_config(loaded))
    seconds = warm_up(driver)
    policy = AlpasimDriver(driver, AlpasimSettings(reduce_images=not full_decode))
    with serving(policy, 0, "127.0.0.1", 16, mode="alpasim") as port:
        pipe.send((port, seconds))
        while pipe.recv() == "time":
            pipe.send(time.process_time())
    reports = policy.report.sessions.values()
    pipe.send([report.counts for report in reports])


def declared(size: tuple[int, int]) -> list[Any]:
    """NAVSIM's cameras."""
    made = []
    for name, rotation in zip(CAMERAS, synth_rig().rotations, strict=True):
        camera = wire.AvailableCamera(logical_id=name)
        scale = size[0] / SIZE[0]
        lens = camera.intrinsics.opencv_pinhole_param
        lens.focal_length_x = lens.focal_length_y = 1545 * scale
        lens.principal_point_x, lens.principal_point_y = 960 * scale, 560 * scale
        camera.intrinsics.resolution_w, camera.intrinsics.resolution_h = size
        pose = Pose.from_rotation(np.array([1.6, 0.0, 1.5]), Rotation.from_matrix(rotation))
        camera.rig_to_camera.CopyFrom(pose.to_proto())
        made.append(camera)
    return made


def picture(seed: int, size: tuple[int, int]) -> bytes:
    """A JPEG of quality 95 with shapes and some noise: about as many bytes as a street."""
    rng = np.random.default_rng(seed)
    image = np.full((size[1], size[0], 3), 120, np.uint8)
    for _ in range(200):
        corner = rng.integers(0, size[0], 2)
        colour = rng.integers(0, 256, 3).tolist()
        cv2.rectangle(image, corner.tolist(), (corner + rng.integers(10, 300, 2)).tolist(), colour, -1)
    noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def decode_time(size: tuple[int, int], reduction: int, repeats: int = 5) -> float:
    """Processor time [ms] of decoding the three images of a plan at 1/``reduction`` of their size."""
    images = [picture(index, size) for index in range(3)]
    begun = time.process_time()
    for image in images * repeats:
        decoded_image(image, reduction)
    return 1000 * (time.process_time() - begun) / repeats


def drive(port: int, number: int, steps: int, size: tuple[int, int], start: threading.Barrier) -> list[float]:
    """One session: seconds that each step took, from the first observation to the plan."""
    images = [picture(10 * number + index, size) for index in range(3)]
    taken = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub, uuid = wire.EgodriverServiceStub(channel), f"session {number}"
        request = wire.DriveSessionRequest(session_uuid=uuid, random_seed=number)
        request.rollout_spec.vehicle.available_cameras.extend(declared(size))
        stub.start_session(request)
        start.wait()
        begun = time.perf_counter()
        for step in range(steps):
            time.sleep(max(0.0, begun + step * STEP_US * 1e-6 - time.perf_counter()))
            asked, now = time.perf_counter(), 1_600_000_000_000_000 + step * STEP_US
            ego = wire.RolloutEgoTrajectory(session_uuid=uuid)
            ego.trajectory.poses.append(Pose.from_xyz_yaw(0.5 * step, 0.0, 0.0, 0.0).to_proto_at_time(now))
            ego.dynamic_states.add().linear_velocity.x = 5.0
            stub.submit_egomotion_observation(ego)
            for name, content in zip(CAMERAS, images, strict=True):
                image = wire.RolloutCameraImage(session_uuid=uuid)
                image.camera_image.logical_id, image.camera_image.image_bytes = name, content
                image.camera_image.frame_start_us, image.camera_image.frame_end_us = now - 17_000, now
                stub.submit_image_observation(image)
            plan = stub.drive(
                wire.DriveRequest(session_uuid=uuid, time_now_us=now, time_query_us=now + STEP_US)
            )
            assert len(plan.trajectory.poses) == 9
            taken.append(time.perf_counter() - asked)
        taken.append(time.perf_counter() - begun)
        stub.close_session(wire.DriveSessionCloseRequest(session_uuid=uuid))
    return taken


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="ltf_tiny_1xb16-12e_synth")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--width", type=int, default=1920, help="of the images; their height is 9/16 of it")
    parser.add_argument("--full-decode", action="store_true")
    parser.add_argument("--planner", choices=PLANNERS, default="onnx")
    args = parser.parse_args(argv)
    size = (args.width, args.width * 9 // 16)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    given = (theirs, args.config, args.full_decode, args.planner)
    server = spawn.Process(target=serve, args=given, daemon=True)  # (it ends with this process)
    server.start()

    def told() -> Any:
        while not ours.poll(1.0):
            if not server.is_alive() and not ours.poll():
                raise SystemExit("alpasim_sessions: the server has ended; what it said is above")
        return ours.recv()

    port, seconds = told()
    spent: list[NDArray[np.float64]] = []

    def note_time() -> None:
        ours.send("time")
        spent.append(np.array([told(), time.process_time()]))

    start = threading.Barrier(args.sessions, action=note_time)
    with ThreadPoolExecutor(args.sessions) as pool:
        futures = [
            pool.submit(drive, port, number, args.steps, size, start) for number in range(args.sessions)
        ]
        for future in futures:  # (who waits for one that has failed before the start would wait for ever)
            future.add_done_callback(lambda done: start.abort() if done.exception() else None)
        results = [future.result() for future in futures]
    note_time()
    ours.send("end")
    counts = told()
    server.join()
    steps = np.concatenate([result[:-1] for result in results])
    rates = [args.steps / result[-1] for result in results]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; one plan alone {1000 * seconds:.1f} ms")
    print(
        f"{args.sessions} sessions, images {size[0]} x {size[1]}, "
        f"{'full' if args.full_decode else 'reduced'} decode, planner {args.planner}"
    )
    served, asked = 1000 * (spent[1] - spent[0]) / (args.sessions * args.steps)
    cores = served * args.sessions / 100
    print(
        f"processor time per plan {served:.1f} ms (clients {asked:.1f} ms): {args.sessions} sessions at "
        f"10 Hz need {cores:.2f} cores, {1 - cores / 2:.0%} of two are left"
    )
    shrunk = ", ".join(f"1/{by} {decode_time(size, by):.1f} ms" for by in (1, 2, 4, 8))
    print(f"of which three images of {len(picture(0, size)) // 1000} KB, by size decoded: {shrunk}")
    print(f"slowest session {min(rates):.2f} Hz, {min(rates) / 10:.2f} of the 10 Hz asked for")
    print(
        f"a step takes {1000 * np.median(steps):.0f} ms (median), "
        f"{1000 * np.percentile(steps, 95):.0f} ms (95 %); "
        f"{(steps > 0.1).mean():.1%} of steps are late"
    )
    fallen = sum(count.get("cached_plan", 0) + count.get("straight_on", 0) for count in counts)
    print(f"{fallen} of {args.sessions * args.steps} plans are fallbacks")


if __name__ == "__main__":
    main()
