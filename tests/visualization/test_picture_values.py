"""Whether a picture shows certain numbers, also where it is none any more."""

from beyonddrive.visualization.picture_values import shows


def test_a_picture_that_is_damaged_or_gone_shows_nothing(tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert not shows(damaged, []) and not shows(tmp_path / "gone.png", [])
