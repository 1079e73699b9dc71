"""Fingerprints: what counts as a change of a file."""

import os

from beyonddrive.datasets.stores.fingerprints import fingerprint, is_unchanged


def test_what_counts_as_a_change(tmp_path):
    path, other = tmp_path / "log", tmp_path / "copy"
    path.write_bytes(b"0" * 5000 + b"1" + b"0" * 5000)
    known = fingerprint(path)
    assert known.size == 10001 and is_unchanged(path, known)
    other.write_bytes(path.read_bytes())
    assert is_unchanged(other, known), "a copy, later"
    os.utime(path, ns=(0, 0))
    assert is_unchanged(path, known), "an earlier time"
    path.write_bytes(b"0" * 5000 + b"2" + b"0" * 5000)
    assert not is_unchanged(path, known), "one byte in the middle"
    assert not is_unchanged(tmp_path / "gone", known)
    path.write_bytes(b"0" * 5000 + b"1" + b"0" * 4999)
    assert not is_unchanged(path, known), "another size"


def test_a_file_is_read_again_only_when_it_may_have_changed(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.write_bytes(b"1")
    known = fingerprint(path)
    monkeypatch.setattr("pathlib.Path.open", lambda *_: 1 / 0)
    assert fingerprint(path) == known and is_unchanged(path, known)
