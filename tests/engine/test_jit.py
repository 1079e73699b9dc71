"""Compiled kernels are never older than what they were compiled from."""

import os
import subprocess
import sys
from pathlib import Path

from beyonddrive.engine import jit

PACKAGE = Path(jit.__file__).parents[1]


def test_compiled_code_is_not_older_than_its_source(tmp_path):
    """A constant that changes without time or size of the file is compiled anew, which plain numba misses."""
    module = tmp_path / "kernels_of_a_test.py"
    script = "import sys; sys.path.insert(0, sys.argv[1]); import kernels_of_a_test as k; print(k.outer(1.0))"
    source = (
        "from beyonddrive.engine.jit import kernel\n"
        "FACTOR = {}\n"
        "@kernel\ndef inner(x):\n    return FACTOR * x\n"
        "@kernel\ndef outer(x):\n    return inner(x)\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(factor):
        module.write_text(source.format(factor))
        os.utime(module, (1_600_000_000, 1_600_000_000))
        command = [sys.executable, "-c", script, str(tmp_path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return float(done.stdout)

    assert run("2.0") == 2.0
    compiled = sorted((tmp_path / "cache").rglob("*.nbc"))
    assert compiled, "nothing was kept on disk"
    assert run("2.0") == 2.0
    assert run("3.0") == 3.0


def test_a_kernel_anywhere_depends_on_all_kernels_of_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(jit, "_PACKAGE", tmp_path)
    kernels = tmp_path / "evaluation" / "pdm"
    kernels.mkdir(parents=True)
    outside = tmp_path / "elsewhere" / "plugin.py"
    outside.parent.mkdir()
    outside.write_text("@kernel")

    def stamp(text):
        (kernels / "areas.py").write_text(text)
        jit.source_stamp.cache_clear()
        return jit.source_stamp(str(outside))

    first = stamp("@kernel\ndef area(): return 1")
    assert stamp("@kernel\ndef area(): return 2") != first
    assert stamp("@kernel\ndef area(): return 1") == first
    jit.source_stamp.cache_clear()


def test_every_room_with_kernels_is_known():
    rooms = [folder for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()]
    rooms = [room for room in rooms if room.name not in ("tests", "benchmarks")]
    texts = {room.name: [file.read_text() for file in room.rglob("*.py")] for room in rooms}
    using = {name for name, files in texts.items() if any("engine.jit import" in text for text in files)}
    assert using <= set(jit.KERNEL_ROOMS)
    # Nobody goes round the guard.
    bare = {name for name, files in texts.items() if any("import njit" in text for text in files)}
    assert bare == {"engine"}
