"""Record the scenes of the self-test: ``python tests/evaluation/record_self_test.py``.

One golden scene for each score (tests/data/golden/pdms, tests/data/epdms), with many values of EP:
metric cache, plans, and what the official code gave them. Run it again when ``CACHE_VERSION`` changes; the
scores stay what they are.
"""

import io
import zipfile
from pathlib import Path

import numpy as np

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.evaluation.pdm import build_metric_cache
from beyonddrive.evaluation.self_test import SCENES

DATA = Path(__file__).parents[1] / "data"
MAPS = DATA / "golden/pdms/data/maps"
NUM_PLANS = 24
RECORDED = {
    "v1": (DATA / "golden/pdms/data", "golden", DATA / "golden/pdms/scores", "c3ec1c6537aa7acd", ("scores",)),
    "v2": (
        DATA / "epdms",
        "epdms",
        DATA / "epdms/scores",
        "236da45081149a52",
        ("scores_filtered", "total_filtered"),
    ),
}


def official(folder, token, columns):
    """Plans and official scores of a scene: rows that both official environments agree on, well spread."""
    with np.load(next(folder.glob(f"*{token}.npz"))) as archive:
        stable = np.flatnonzero(archive["stable"])
        rows = stable[np.linspace(0, len(stable) - 1, NUM_PLANS).round().astype(int)]
        scores = [archive[name][rows].reshape(NUM_PLANS, -1) for name in columns]
        return archive["poses"][rows], np.concatenate(scores, axis=1)


def record():
    """All arrays of the file by name."""
    arrays = {}
    for version, (folder, split, scores, token, columns) in RECORDED.items():
        root = NavsimRoot(folder, MAPS)
        scene = next(s for s in root.scenes(split, SceneFilter(frame_interval=1)) if s.token == token)
        cache = build_metric_cache(scene, root.map(scene.map_location))
        arrays |= {f"{version}/cache/{name}": array for name, array in cache.to_arrays().items()}
        arrays[f"{version}/plans"], arrays[f"{version}/scores"] = official(scores, token, columns)
    return arrays


def write(path, arrays):
    """An npz archive, compressed, that is the same bytes for the same arrays."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sorted(arrays.items()):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    write(SCENES, record())
    print(f"{SCENES}: {SCENES.stat().st_size} bytes")
