"""A small planner and small inputs, for tests that need some and care for none in particular."""

import torch
from mmengine.structures import BaseDataElement

from beyonddrive.plugins.flow_policy.planner import FlowPolicy
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import SceneTokens

ENCODER = {"name": "resnet18", "layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)} | {
    "stem_type": "deep",
    "stem_width": 4,
}
BACKBONE = {
    "latent": True,
    "image_encoder": ENCODER,
    "bev_encoder": ENCODER,
    "image_size": (32, 64),
    "bev_size": (32, 32),
    "num_layers": 1,
    "top_down_channels": 4,
}
DECODER = {"dim": 8, "num_queries": 4, "num_layers": 1, "num_heads": 2, "ffn_dim": 8}


def flow_policy(**head) -> FlowPolicy:
    """The generator in evaluation mode, its weights from seed 0."""
    torch.manual_seed(0)
    denoiser = {"dim": 8, "num_context": 3, "num_heads": 2, "ffn_dim": 8}
    config = {"type": "FlowHead", "denoiser": denoiser, **head}
    return FlowPolicy(trajectory_head=config, backbone=BACKBONE, decoder=DECODER).eval()


def camera_batch(batch=2):
    """Scenes as a data loader gives them, before the preprocessor."""
    samples = []
    for row in range(batch):
        samples.append(PlanSample(metainfo={"token": f"scene{row}"}))
        samples[-1].gt = BaseDataElement(trajectory=torch.zeros(8, 3), agent_states=torch.zeros(30, 5))
    camera = [torch.randint(0, 256, (3, 32, 64), dtype=torch.uint8) for _ in range(batch)]
    return {
        "inputs": {"camera": camera, "status": [torch.rand(8) for _ in range(batch)]},
        "data_samples": samples,
    }


def scene_tokens(batch: int = 2) -> SceneTokens:
    """What an encoder of 16 channels would give, with a map of 4 channels, from seed 1."""
    generator = torch.Generator().manual_seed(1)
    return SceneTokens(
        queries=torch.randn(batch, 4, 16, generator=generator),
        status=torch.zeros(batch, 8),
        memory=torch.randn(batch, 5, 16, generator=generator),
        bev=torch.randn(batch, 4, 8, 8, generator=generator),
    )
