"""Reproducible weights, inputs, targets and noise for the planner golden data.

Self-contained (numpy only; torch is used only by the two small convenience
functions at the end).  Every tensor is a function of its *name* and *shape*:

    rng  = numpy.random.Generator(numpy.random.PCG64(zlib.crc32(name.encode())))
    n    = rng.standard_normal(shape)            # float64, C order

Weights (name = the state_dict key, full key, no 'agent.' prefix):
    *.num_batches_tracked (or any integer dtype)  -> 0
    *running_mean                                 -> 0.02 * n
    *running_var                                  -> 1 + 0.1 * |n|
    1-D and key ends in 'weight' (norm scale)     -> 1 + 0.02 * n
    any other 0-D / 1-D (biases)                  -> 0.02 * n
    ndim >= 3 and shape[0] == 1 (pos. embeddings,
        lidar latent)                             -> 0.5 * n
    everything else with ndim >= 2                -> n / sqrt(prod(shape[1:]))
then cast to float32.  Keys listed in the 'data_keys' field of <planner>.keys.json
are NOT random: their numbers are carried in <planner>.data.npz under the same key.
"""

import json
import os
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def rng_for(name):
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode("utf-8"))))


def normal(name, shape):
    return rng_for(name).standard_normal(tuple(shape))


def weight(key, shape, dtype="float32"):
    shape = tuple(int(s) for s in shape)
    if "int" in dtype or key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    n = normal(key, shape)
    if key.endswith("running_mean"):
        v = 0.02 * n
    elif key.endswith("running_var"):
        v = 1.0 + 0.1 * np.abs(n)
    elif len(shape) <= 1:
        v = 1.0 + 0.02 * n if key.endswith("weight") else 0.02 * n
    elif len(shape) >= 3 and shape[0] == 1:
        v = 0.5 * n
    else:
        v = n / np.sqrt(np.prod(shape[1:]))
    return np.asarray(v, np.float32)


def fill_state_dict(keys_json):
    """keys_json: path of <planner>.keys.json (or the loaded dict) -> {key: ndarray}."""
    base = None
    if isinstance(keys_json, (str, os.PathLike)):
        base = Path(keys_json).resolve().parent
        keys_json = json.loads(Path(keys_json).read_text())
    out = {}
    data = None
    for key, (shape, dtype) in keys_json["keys"].items():
        if key in keys_json.get("data_keys", []):
            if data is None:
                data = np.load(Path(base or HERE) / (keys_json["planner"] + ".data.npz"))
            out[key] = data[key]
        else:
            out[key] = weight(key, shape, dtype)
    return out


# ----------------------------------------------------------------- inputs
def camera(b=2, name="input/camera", h=256, w=1024):
    """(b, 3, h, w) in [0, 1]: 32-pixel blocks plus pixel noise.  Row i does not depend on b."""
    blk = rng_for(name).random((b, 3, h // 32, w // 32))
    pix = rng_for(name + "/pixel").random((b, 3, h, w))
    return (0.75 * np.repeat(np.repeat(blk, 32, 2), 32, 3) + 0.25 * pix).astype(np.float32)


def lidar(b=2, name="input/lidar", c=1, size=256):
    """BEV histogram values in {0, .2, .4, .6, .8, 1}; about 80 % of the cells are 0."""
    u = rng_for(name).random((b, c, size, size))
    return (np.clip(np.floor(np.clip((u - 0.8) / 0.2, 0, 1) * 6), 0, 5) / 5).astype(np.float32)


def status(b=2, name="input/status"):
    """[command one-hot(4) | vx vy | ax ay]; row i has command i % 4."""
    n = normal(name, (b, 4))
    out = np.zeros((b, 8), np.float32)
    out[np.arange(b), np.arange(b) % 4] = 1
    out[:, 4:] = n * np.array([2.0, 0.2, 1.0, 0.3]) + np.array([5.0, 0, 0, 0])
    return out


def trajectory(name, b=2, t=8, turn=0.1):
    """Plausible (x, y, heading) poses: step = |3 + .5 n|, heading = cumsum(turn * n)."""
    n = normal(name, (b, t, 2))
    step = np.abs(3.0 + 0.5 * n[..., 0])
    head = np.cumsum(turn * n[..., 1], axis=1)
    x = np.cumsum(step * np.cos(head), axis=1)
    y = np.cumsum(step * np.sin(head), axis=1)
    return np.stack([x, y, head], -1).astype(np.float32)


def negatives(case, b=2):
    """(b, 8, 3) negative trajectories of one edge case.

    all    : every row is a forward trajectory (component sum > 0)
    none   : all zeros (= 'no negative for this sample' in the reference)
    mixed  : row 0 zero, the others forward
    negsum : row 0 is the forward trajectory mirrored to x -> -0.2 x, y -> -|y| - 2
             (component sum < 0), the others forward
    allneg : every row as row 0 of negsum
    """
    base = trajectory("target/negative", b, turn=0.2)
    flip = base.copy()
    flip[..., 0] *= -0.2
    flip[..., 1] = -np.abs(flip[..., 1]) - 2
    flip[..., 2] = -np.abs(flip[..., 2])
    out = base.copy()
    if case == "none":
        out[:] = 0
    elif case == "mixed":
        out[0] = 0
    elif case == "negsum":
        out[0] = flip[0]
    elif case == "allneg":
        out[:] = flip
    elif case != "all":
        raise ValueError(case)
    return out


NEGATIVE_CASES = ("all", "none", "mixed", "negsum", "allneg")


def agents(b=2, n=30, name="target/agents", empty=False):
    """agent_states (b, n, 5) [x y heading length width] and labels (b, n) bool.

    Row i has 6 - 3 * (i % 2) valid agents, in front of and behind the ego; the rest is 0.
    """
    z = normal(name, (b, n, 5))
    st = z * np.array([12.0, 12.0, 1.0, 0.3, 0.1]) + np.array([0, 0, 0, 4.6, 1.9])
    st[..., :2] = np.clip(st[..., :2], -32, 32)
    st[..., 2] = np.clip(st[..., 2], -np.pi, np.pi)
    lab = np.zeros((b, n), bool)
    for i in range(b):
        lab[i, : 6 - 3 * (i % 2)] = not empty
    st = np.where(lab[..., None], st, 0).astype(np.float32)
    return st, lab


def bev_map(b=2, h=128, w=256, classes=7, name="target/bev"):
    """Semantic labels in 8x8-pixel blocks."""
    blk = rng_for(name).integers(0, classes, (b, h // 8, w // 8))
    return np.repeat(np.repeat(blk, 8, 1), 8, 2).astype(np.int64)


def noise(planner, index, shape, kind="normal", high=None):
    """The index-th draw (0, 1, ...) of a stochastic call, in call order.

    kind: normal (randn / randn_like), uniform (rand), int (randint(0, high))."""
    rng = rng_for(f"noise/{planner}/{index}")
    if kind == "normal":
        return rng.standard_normal(tuple(shape)).astype(np.float32)
    if kind == "uniform":
        return rng.random(tuple(shape)).astype(np.float32)
    if kind == "int":
        return rng.integers(0, high, tuple(shape)).astype(np.int64)
    raise ValueError(kind)


# ----------------------------------------------------------------- raw sensor data
def raw_camera(cam, h=1080, w=1920):
    """uint8 RGB image of camera 'l0' / 'f0' / 'r0': 40-pixel blocks plus pixel noise."""
    rng = rng_for("input/raw_cam_" + cam)
    blk = rng.integers(0, 256, (h // 40, w // 40, 3))
    pix = rng.integers(0, 256, (h, w, 3))
    return (0.75 * np.repeat(np.repeat(blk, 40, 0), 40, 1) + 0.25 * pix).astype(np.uint8)


def raw_lidar(n=20000):
    """(6, n + 8) float32 point cloud; the last 8 points sit on bin / height edges."""
    pts = np.zeros((6, n + 8), np.float32)
    pts[:3, :n] = (normal("input/raw_lidar", (n, 3)) * np.array([15.0, 15.0, 2.0])).T
    pts[:3, n:] = np.array(
        [
            [32, 0, 1],
            [-32, 0, 1],
            [0, 32, 1],
            [0, -32, 1],
            [32.01, 0, 1],
            [5, 5, 0.2],
            [5, 5, 0.20001],
            [5, 5, 100.0],
        ],
        np.float32,
    ).T
    return pts


RAW_NAMES = ("vehicle", "pedestrian", "traffic_cone", "barrier", "czone_sign", "generic_object", "bicycle")


def raw_boxes(n=60):
    """(names, boxes (n, 7) = x y z length width height yaw), ego frame."""
    z = normal("input/raw_boxes", (n, 7))
    box = z * np.array([18.0, 18.0, 0.3, 0.4, 0.2, 0.2, 1.5]) + np.array([8.0, 0, 0, 4.5, 1.9, 1.7, 0])
    names = [RAW_NAMES[0] if i % 3 else RAW_NAMES[1 + (i // 3) % 6] for i in range(n)]
    return names, box


RAW_EGO = (664430.3, 3997650.2, 1.1)  # global x, y, heading


def raw_map():
    """Global-frame geometry: {'lane': [(k,2)...], 'intersection': [...], 'walkway': [...],
    'lane_line': [...], 'connector_line': [...]} (polygons are given as open rings)."""
    x0, y0, h = RAW_EGO
    c, s = np.cos(h), np.sin(h)

    def glob(p):
        p = np.asarray(p, np.float64)
        return np.stack([x0 + c * p[:, 0] - s * p[:, 1], y0 + s * p[:, 0] + c * p[:, 1]], 1)

    def strip(y, half, x_from, x_to, bend):
        x = np.linspace(x_from, x_to, 15)
        mid = y + bend * (x / 30.0) ** 2
        return np.concatenate([np.stack([x, mid + half], 1), np.stack([x, mid - half], 1)[::-1]])

    def line(y, x_from, x_to, bend):
        x = np.linspace(x_from, x_to, 15)
        return np.stack([x, y + bend * (x / 30.0) ** 2], 1)

    ys = (-7.0, -3.5, 0.0, 3.5)
    return {
        "lane": [glob(strip(y, 1.75, -30, 20, 3.0)) for y in ys],
        "intersection": [glob([[20, -12], [34, -12], [34, 14], [20, 14]])],
        "walkway": [glob(strip(10.0, 1.5, -30, 20, 3.0)), glob(strip(-12.0, 1.2, -5, 18, 3.0))],
        "lane_line": [glob(line(y, -30, 20, 3.0)) for y in ys],
        "connector_line": [glob(line(y, 20, 34, 3.0)) for y in ys[:2]],
    }


# ----------------------------------------------------------------- probes
def probe_index(size, k=64):
    return np.linspace(0, size - 1, min(k, size)).astype(np.int64)


def probe(x, k=64):
    """Compact fingerprint of a big array: k evenly spaced flat elements, and
    [mean, std (population), sum of absolute values] in float64."""
    x = np.asarray(x)
    f = x.reshape(-1)
    d = f.astype(np.float64)
    return f[probe_index(f.size, k)], np.array([d.mean(), d.std(), np.abs(d).sum()])


def check(planner, outputs, rtol=2e-5, base=None):
    """Compare {name: array} with the golden arrays of a planner.

    name is the part after 'out/', 'probe/', 'loss/' or 'grad/' in <planner>.npz.
    Returns a list of (name, max abs difference, allowed) of everything that fails;
    allowed = rtol * (1 + max |golden|).  NaN goldens must be NaN."""
    bad = []
    with np.load(Path(base or HERE) / (planner + ".npz")) as g:
        for name, v in outputs.items():
            v = np.asarray(v)
            for kind in ("out/", "probe/", "loss/", "grad/"):
                if kind + name in g:
                    ref = g[kind + name]
                    break
            else:
                bad.append((name, "no such golden", None))
                continue
            if kind == "probe/":
                if tuple(g["shape/" + name]) != v.shape:
                    bad.append((name, "shape", v.shape))
                    continue
                v = probe(v, ref.size)[0]
            if v.shape != ref.shape:
                bad.append((name, "shape", v.shape))
                continue
            if np.isnan(ref).any():
                if not np.array_equal(np.isnan(ref), np.isnan(v)):
                    bad.append((name, "nan pattern", None))
                continue
            d = float(np.abs(v.astype(np.float64) - ref).max()) if ref.size else 0.0
            lim = rtol * (1.0 + float(np.abs(ref).max()))
            if not d <= lim:
                bad.append((name, d, lim))
    return bad


def load_into(module, keys_json, map_key=lambda k: k, strict=True):
    """Fill a torch module; map_key maps an official key to the module's own key."""
    import torch

    sd = {map_key(k): torch.from_numpy(np.array(v)) for k, v in fill_state_dict(keys_json).items()}
    return module.load_state_dict(sd, strict=strict)
