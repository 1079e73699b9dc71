"""Locks between processes, and files that are whole or not there."""

import threading

import pytest

from beyonddrive.engine.files import LockedError, atomic_file, file_lock, write_atomically


def test_one_holds_a_lock_at_a_time_and_leaves_no_file(tmp_path):
    path, order = tmp_path / "lock", []

    def other():
        with file_lock(path):
            order.append("other")

    with file_lock(path):
        with pytest.raises(LockedError, match="another process holds"), file_lock(path, wait=False):
            pass
        threads = [threading.Thread(target=other) for _ in range(3)]
        for thread in threads:
            thread.start()
        threads[0].join(0.2)
        order.append("first")
    for thread in threads:
        thread.join(30)
    assert order == ["first", "other", "other", "other"]
    assert not list(tmp_path.iterdir())


def test_a_file_that_must_be_new_is_not_replaced(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"one", replace=False)
    with pytest.raises(FileExistsError):
        write_atomically(path, b"two", replace=False)
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_finished_changes_nothing(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"one")
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"two")
        raise RuntimeError
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]
