"""``reproduce``: a tiny release from a local hub, evaluated and compared."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from beyonddrive.checkpoints.published_weights import (
    PublishedError,
    PublishedRow,
    check_sum,
    fetch,
)
from beyonddrive.engine.runner import build_test_runner, evaluate, load_config
from beyonddrive.tools import reproduce as tool


@pytest.fixture
def release(tmp_path, blind_recipe):
    """Weights of a tiny planner, and its figures."""
    torch.manual_seed(0)
    runner = build_test_runner(load_config(blind_recipe), work_dir=str(tmp_path / "w"))
    torch.save({"state_dict": runner.model.state_dict()}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth", evaluate(runner).metrics


@pytest.fixture
def hub(release, monkeypatch, tmp_path):
    """Address of a server that answers as the hub does, for one file."""
    content = release[0].read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            there = self.path == "/team/tiny/resolve/main/tiny.pth"
            self.send_response(200 if there else 404)
            self.send_header("Content-Length", str(len(content)) if there else "0")
            self.send_header("ETag", '"' + hashlib.sha256(content).hexdigest() + '"')
            self.send_header("X-Repo-Commit", "a" * 40)
            self.end_headers()
            return there

        do_HEAD = answer  # noqa: N815

        def do_GET(self):
            if self.answer():
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def metafile(tmp_path, recipe, figures, sha256=""):
    path = tmp_path / "metafile.yml"
    metrics = {name: round(figures[f"pdms/{name}"], 1) for name in ("NC", "PDMS")}
    path.write_text(
        f"Models:\n- Name: tiny\n  Config: {recipe}\n"
        f"  Results:\n  - {{Task: Planning, Dataset: NAVSIM navtest, Metrics: {metrics}}}\n"
        f"  Weights: {{Repo: team/tiny, File: tiny.pth, SHA256: '{sha256}'}}\n"
    )
    return f"--metafile={path}"


def test_published_figures_are_met_or_the_difference_is_said(
    tmp_path, monkeypatch, capsys, blind_recipe, split_root, release, hub
):
    monkeypatch.chdir(tmp_path)
    path, figures = release
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    words = ["tiny", f"--data-root={split_root}", f"--endpoint={hub}"]
    assert tool.main([*words, metafile(tmp_path, blind_recipe, figures, digest)]) == 0
    out = capsys.readouterr().out
    assert f"sha256 {digest}, as published" in out and out.count(": met") == 2
    other = {**figures, "pdms/NC": figures["pdms/NC"] + 3}
    assert tool.main([*words, metafile(tmp_path, blind_recipe, other), f"--checkpoint={path}"]) == 1
    out, err = capsys.readouterr()
    assert "differs by -" in out and "no published one is known" in out and "not met" in err
    assert tool.main([*words, metafile(tmp_path, blind_recipe, figures, "0" * 64)]) == 1
    assert "it is damaged or another file" in capsys.readouterr().err


def test_data_that_cannot_give_the_figures_are_told_before_anything_is_fetched(
    tmp_path, monkeypatch, capsys, blind_recipe, split_root, release
):
    monkeypatch.chdir(tmp_path)
    path, figures = release
    words = ["tiny", f"--data-root={split_root}", metafile(tmp_path, blind_recipe, figures)]
    log = sorted((split_root / "navsim_logs/test").glob("*.pkl"))[0]
    log.write_bytes(b"damaged")
    capsys.readouterr()
    assert tool.main(words) == 1  # (the address leads nowhere)
    out, err = capsys.readouterr()
    assert "fail  split test" in out and "sha256" not in out and log.name in out
    assert err.count("\n") == 1 and "mend them, or give --any-data" in err
    assert tool.main([*words, f"--checkpoint={path}", "--any-data"]) == 1
    out, err = capsys.readouterr()
    assert "scenes scored" in out and f"{log.stem} has no score" in err


def test_maps_may_be_elsewhere(tmp_path, monkeypatch, blind_recipe, split_root, release):
    monkeypatch.chdir(tmp_path)
    path, figures = release
    maps = (split_root / "maps").rename(tmp_path / "maps elsewhere")
    words = ["tiny", f"--data-root={split_root}", metafile(tmp_path, blind_recipe, figures)]
    assert tool.main([*words, f"--checkpoint={path}", f"--maps-root={maps}"]) == 0
    assert tool.main([*words, f"--checkpoint={path}"]) == 1


def test_what_cannot_be_fetched_is_said(tmp_path, hub, capsys):
    with pytest.raises(PublishedError, match=r"team/none.pth: cannot be fetched .*give --checkpoint FILE"):
        fetch(PublishedRow("x", "c", {}, "team", "none.pth"), hub)
    with pytest.raises(PublishedError, match="no address of its checkpoint is known"):
        fetch(tool.find_row("ltf-delta", None))
    assert tool.main(["nothing", "--data-root=x"]) == 1
    assert "there are diffusiondrive, diffusiondrive-beyonddrive, flow_policy" in capsys.readouterr().err
    (tmp_path / "m.yml").write_text("Models: [{Name: a}]")
    assert tool.main(["a", "--data-root=x", f"--metafile={tmp_path / 'm.yml'}"]) == 1
    assert "m.yml: an entry lacks the key 'Config'" in capsys.readouterr().err
    (tmp_path / "f").write_bytes(b"abc")
    assert check_sum(tmp_path / "f", "").startswith("ba7816bf")
