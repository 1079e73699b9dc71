"""Files are the old one or the whole new one, whoever else writes them."""

import errno
import fcntl
import multiprocessing
import os
import pathlib
import resource

import pytest

from beyonddrive.engine.files import atomic_file, remove_leftovers, write_atomically


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


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    """The limit on file sizes that a shell's ``ulimit -f`` sets acts as a full disk does."""
    path = tmp_path / "shard"
    write_atomically(path, b"old")

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            write_atomically(path, bytes(100_000))
        except OSError as error:
            os._exit(3 if error.filename == str(path) and error.errno == errno.EFBIG else 4)
        os._exit(5)

    process = multiprocessing.get_context("fork").Process(target=fill)
    process.start()
    process.join()
    assert process.exitcode == 3
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named_by_the_file(tmp_path, monkeypatch):
    """Of a folder that only others may write in, as root sees none."""
    path = tmp_path / "shard"

    def refused(self, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.open", refused)
    with pytest.raises(PermissionError, match="shard") as error:
        write_atomically(path, b"new")
    assert error.value.filename == str(path) and not list(tmp_path.iterdir())


def test_leftovers_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path):
    dead = tmp_path / ".a.0123.partial"
    dead.write_bytes(b"half")
    with atomic_file(tmp_path / "b") as file:
        file.write(b"whole")
        remove_leftovers(tmp_path)
        assert not dead.exists() and len(list(tmp_path.iterdir())) == 1
    assert (tmp_path / "b").read_bytes() == b"whole"


@pytest.mark.parametrize("replace", [True, False])
def test_a_file_that_is_complete_is_no_leftover_before_it_has_its_name(tmp_path, monkeypatch, replace):
    """Another writer starts, and clears the folder, right before the file gets its name."""

    def late(name_it):
        def after_the_other(*arguments, **keywords):
            remove_leftovers(tmp_path)
            return name_it(*arguments, **keywords)

        return after_the_other

    monkeypatch.setattr("pathlib.Path.replace", late(pathlib.Path.replace))
    monkeypatch.setattr(os, "link", late(os.link))
    write_atomically(tmp_path / "a", b"whole", replace=replace)
    assert (tmp_path / "a").read_bytes() == b"whole" and len(list(tmp_path.iterdir())) == 1


def test_leftovers_go_where_locks_are_for_what_is_open_for_writing(tmp_path, monkeypatch):
    """As NFS has it, where an exclusive lock is one on the bytes of the file."""

    def flock(file, operation):
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        own_flock(file, operation)

    own_flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / ".a.0123.partial").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())
