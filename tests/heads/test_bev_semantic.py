"""The head of the bird's-eye-view map."""

import pytest

from beyonddrive.heads.bev_semantic import BEVSemanticHead


def test_bev_head_size_and_missing_map(make_tokens):
    head = BEVSemanticHead(in_channels=4, map_size=(16, 32))
    assert head(make_tokens())["bev_semantic_map"].shape == (2, 7, 16, 32)
    with pytest.raises(ValueError, match=r"BEVSemanticHead needs tokens\.bev"):
        head(make_tokens(bev=False))
    with pytest.raises(ValueError, match="in_channels is 8, but the maps that it gets have 4"):
        BEVSemanticHead(in_channels=8)(make_tokens())
