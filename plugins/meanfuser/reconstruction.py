"""Adaptive reconstruction: proposals, read together with the scene, become one plan (MODELS, section 7)."""

from __future__ import annotations

from torch import Tensor, nn

from beyonddrive.heads.base import as_poses
from beyonddrive.structures.plan import NUM_POSES


class PlanReconstruction(nn.Module):
    """Proposals as tokens attend to each other and to the scene's queries; an MLP makes one plan of them.

    Args:
        num_proposals: Proposals it takes; its last layers depend on the number.
        pose_dim: Numbers per pose.
        dim: Channels of tokens.
        hidden: Width of the hidden layer that encodes a proposal.
        num_layers: Decoder layers (post-norm, ReLU).
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layers.
        dropout: Dropout probability.
    """

    def __init__(
        self,
        num_proposals: int = 8,
        pose_dim: int = 4,
        dim: int = 128,
        hidden: int = 256,
        num_layers: int = 3,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_proposals, self.pose_dim = num_proposals, pose_dim
        numbers = NUM_POSES * pose_dim
        self.encoder = nn.Sequential(
            nn.Linear(numbers, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, dim, bias=False)
        )
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(dim, num_heads, ffn_dim, dropout, batch_first=True)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Sequential(
            *(nn.Linear(num_proposals * dim, dim, bias=False), nn.SiLU()),
            *(nn.Linear(dim, dim, bias=False), nn.SiLU()),
            nn.Linear(dim, numbers, bias=False),
        )

    def forward(self, proposals: Tensor, context: Tensor) -> Tensor:
        """Proposals (B, P, 8, D) and context queries (B, N, dim) -> one plan (B, 8, D).

        Raises:
            ValueError: If there are not ``num_proposals``.
        """
        if proposals.shape[1] != self.num_proposals:
            raise ValueError(
                f"PlanReconstruction: its layers take {self.num_proposals} proposals, got "
                f"{proposals.shape[1]}: set num_proposals of the head to the checkpoint's"
            )
        encoded = self.encoder(proposals.flatten(-2))
        x = encoded
        for layer in self.layers:
            x = layer(x, context)
        return as_poses(self.output((encoded + self.norm(x)).flatten(-2)), self.pose_dim)
