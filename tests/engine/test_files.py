"""Files are the old one or the whole new one, whoever else writes them."""

import os

import pytest

from beyonddrive.engine.files import write_atomically


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]
    write_atomically(path, b"new", sync=False)
    assert path.read_bytes() == b"new"


def test_two_writers_of_equal_process_id_do_not_share_a_partial_file(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    fsync = os.fsync

    def second_writer(descriptor):
        fsync(descriptor)
        if not seen:
            seen.append([p.name for p in tmp_path.iterdir()])
            write_atomically(path, b"second")
            assert path.read_bytes() == b"second"

    monkeypatch.setattr(os, "fsync", second_writer)
    write_atomically(path, b"first")
    assert len(seen) == 1 and path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
