"""TransFuser: a camera and a LiDAR (or latent) ResNet that exchange features at four scales.

MODELS, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from beyonddrive.backbones.fusion import FusionStage
from beyonddrive.registry import MODELS
from beyonddrive.structures.held import HoldsConstants

STRIDE = 32
"""Down-sampling of the last stage of both encoders."""


@dataclass
class FusedFeatures:
    """What the backbone gives to a decoder.

    Attributes:
        bev: (B, D, h / 32, w / 32) fused bird's-eye-view map.
        image: (B, E, H / 32, W / 32) fused image map.
        top_down: (B, C, h / 4, w / 4) upscaled bird's-eye-view map for dense heads, or None.
        points: (B, C, h, w) what the bird's-eye-view branch was given, where it is learned from points.
    """

    bev: Tensor
    image: Tensor
    top_down: Tensor | None
    points: Tensor | None = None


@MODELS.register_module()
class TransFuserBackbone(HoldsConstants, BaseModule):
    """Camera and bird's-eye view -> fused bird's-eye-view features.

    In latent mode the LiDAR raster is replaced by a learned tensor, the same for every scene. Its stem and
    first stage are therefore run once per batch instead of once per sample, which gives the same features
    and gradients (in training the running variance of those batch norms is estimated from one map instead
    of B equal ones, a factor of n / (n - 1) with n its number of pixels).

    Args:
        image_encoder: Settings of the :class:`StagedResNet` of the image branch.
        bev_encoder: Settings of the one of the bird's-eye-view branch; ``in_channels`` is set from
            ``lidar_channels``.
        latent: Replace the LiDAR input by a learned tensor (LTF).
        image_size: Height and width of the camera image [pixel].
        bev_size: Height and width of the LiDAR raster or the latent [pixel].
        lidar_channels: Channels of the LiDAR raster or the latent.
        image_anchors: Rows and columns of image tokens in the fusion; by default those of the last stage.
        bev_anchors: The same for the bird's-eye view.
        num_layers: Transformer blocks per exchange.
        num_heads: Attention heads.
        mlp_ratio: Width of hidden layers over channels.
        dropout: Dropout probability in the transformers.
        top_down: Also return the upscaled map for dense heads.
        top_down_channels: Channels of that map.
        top_down_stride: ``bev_size`` over the size of that map.

    Attributes:
        lidar_input: Name of the planner's input that :meth:`forward` takes as ``lidar``.
        learns_from_points: Whether the bird's-eye-view branch is given a map of learned features, which heads
            may read, too.
    """

    lidar_input: ClassVar[str] = "lidar"
    learns_from_points: ClassVar[bool] = False

    def __init__(
        self,
        image_encoder: dict[str, Any] | None = None,
        bev_encoder: dict[str, Any] | None = None,
        latent: bool = False,
        image_size: tuple[int, int] = (256, 1024),
        bev_size: tuple[int, int] = (256, 256),
        lidar_channels: int = 1,
        image_anchors: tuple[int, int] | None = None,
        bev_anchors: tuple[int, int] | None = None,
        num_layers: int = 2,
        num_heads: int = 4,
        mlp_ratio: int = 4,
        dropout: float = 0.1,
        top_down: bool = True,
        top_down_channels: int = 64,
        top_down_stride: int = 4,
    ) -> None:
        super().__init__()
        self.image_size, self.bev_size = (image_size[0], image_size[1]), (bev_size[0], bev_size[1])
        self.lidar_channels = lidar_channels
        self.latent = latent
        for name, size in (("image_size", self.image_size), ("bev_size", self.bev_size)):
            if any(s % STRIDE for s in size):
                raise ValueError(f"TransFuserBackbone: {name} must be two multiples of {STRIDE}, got {size}")
        self.out_size = _last_stage(self.bev_size)
        self.image_encoder = MODELS.build({"type": "StagedResNet", **(image_encoder or {})})
        self.bev_encoder = MODELS.build(
            {"type": "StagedResNet", **(bev_encoder or {}), "in_channels": lidar_channels}
        )
        self.held_latent: Tensor | None
        self.register_buffer("held_latent", None, persistent=False)
        if latent:
            self.lidar_latent = nn.Parameter(torch.randn(1, lidar_channels, *self.bev_size))
        self.fusions = nn.ModuleList(
            FusionStage(
                image_channels,
                bev_channels,
                image_anchors or _last_stage(self.image_size),
                bev_anchors or self.out_size,
                num_layers,
                num_heads,
                mlp_ratio,
                dropout,
            )
            for image_channels, bev_channels in zip(
                self.image_encoder.channels, self.bev_encoder.channels, strict=True
            )
        )
        self.out_channels: int = self.bev_encoder.channels[-1]
        self.top_down: TopDown | None = None
        if top_down:
            size = (self.bev_size[0] // top_down_stride, self.bev_size[1] // top_down_stride)
            self.top_down = TopDown(self.out_channels, top_down_channels, size)

    def forward(self, camera: Tensor, lidar: Tensor | Sequence[Tensor] | None = None) -> FusedFeatures:
        """Encode a batch.

        Args:
            camera: (B, 3, H, W) float in [0, 1], stitched left, front, right (MODELS, section 1).
            lidar: (B, C, h, w) LiDAR raster; not read in latent mode, where it may be None. Subclasses may
                take something else, such as a list of point clouds.

        Raises:
            ValueError: If an input is missing or has the wrong size or type.
        """
        self._check("camera", camera, (self.image_encoder.in_channels, *self.image_size))
        image = self.image_encoder.stage(0, self.image_encoder.stem(camera))
        bev, given = self.held_latent, None
        if bev is None:
            given = self._bev_input(lidar)
            bev = self.bev_encoder.stage(0, self.bev_encoder.stem(given))
        bev = bev.expand(image.shape[0], -1, -1, -1)
        image, bev = self.fusions[0](image, bev)
        for index in range(1, len(self.fusions)):
            image = self.image_encoder.stage(index, image)
            bev = self.bev_encoder.stage(index, bev)
            image, bev = self.fusions[index](image, bev)
        top_down = None if self.top_down is None else self.top_down(bev)
        return FusedFeatures(bev, image, top_down, given if self.learns_from_points else None)

    def hold(self) -> None:
        """Keep the map of the latent's first stage, if there is one."""
        if not self.latent:
            return
        bev = self.bev_encoder.stage(0, self.bev_encoder.stem(self.lidar_latent)).detach()
        self.held_latent = bev.contiguous(memory_format=torch.channels_last)

    def _bev_input(self, lidar: Tensor | Sequence[Tensor] | None) -> Tensor:
        if self.latent:
            return self.lidar_latent
        if not isinstance(lidar, Tensor):
            raise ValueError(
                "TransFuserBackbone: inputs have no 'lidar' and the planner is not latent: add the LiDAR "
                "raster to the feature pipeline, or set latent=True (LTF)"
            )
        self._check("lidar", lidar, (self.lidar_channels, *self.bev_size))
        return lidar

    @staticmethod
    def _check(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
        if not x.is_floating_point():
            raise ValueError(
                f"TransFuserBackbone: {name} must be float (camera in [0, 1]), got {x.dtype}: pass the batch "
                f"through the planner's data_preprocessor"
            )
        if x.dim() != 4 or tuple(x.shape[1:]) != shape:
            raise ValueError(
                f"TransFuserBackbone: {name} must be (B, {', '.join(map(str, shape))}), got "
                f"{tuple(x.shape)}: make the feature pipeline and image_size / bev_size of the backbone agree"
            )


def _last_stage(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // STRIDE, size[1] // STRIDE


class TopDown(nn.Module):
    """Upscales the fused map: 1x1 conv, x2 and conv, to full size and conv, each with ReLU.

    Args:
        in_channels: Channels of the fused map.
        channels: Channels of the output.
        size: Rows and columns of the output.
    """

    def __init__(self, in_channels: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.c5_conv = nn.Conv2d(in_channels, channels, 1)
        self.up_conv5 = nn.Conv2d(channels, channels, 3, padding=1)
        self.up_conv4 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, *size)."""
        x = F.relu(self.c5_conv(x))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.relu(self.up_conv5(x))
        x = F.interpolate(x, size=self.size, mode="bilinear", align_corners=False)
        return F.relu(self.up_conv4(x))
