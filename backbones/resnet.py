"""The four stages of a timm ResNet, one at a time, so that two encoders can exchange features in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from beyonddrive.engine.checkpoint_files import CheckpointError, load_checkpoint_file, weights_of
from beyonddrive.registry import MODELS
from beyonddrive.structures.errors import BeyondDriveError

STEM = ("conv1", "bn1", "act1", "maxpool")
"""timm's names of the layers before the first stage."""
STAGES = ("layer1", "layer2", "layer3", "layer4")
"""timm's names of the stages."""


class PretrainedWeightsError(BeyondDriveError, RuntimeError):
    """Weights to start from cannot be had, or are of another network."""


@MODELS.register_module()
class StagedResNet(BaseModule):
    """A timm ResNet without its classifier; parameter names are timm's (``conv1``, ``bn1``, ``layer1`` ...).

    Args:
        name: Any timm model of the ResNet family, e.g. ``'resnet34'``.
        in_channels: Channels of the input.
        pretrained: False for timm's random initialisation; True for timm's ImageNet weights (needs the
            network or timm's cache); a path to a ``.safetensors`` or torch file with timm's keys. Weights are
            loaded by ``init_weights``, which a runner calls before training, so building a planner to load a
            checkpoint or to test it never downloads (MODELS, section 11, quirk 15).
        kwargs: Passed to timm, e.g. ``layers``, ``channels``, ``stem_type``, ``stem_width`` for narrow ones.

    Attributes:
        channels: Channels of the outputs of the four stages.
        trains_by_forward: Whether training calls ``forward``; backbones call the stages.
    """

    trains_by_forward: ClassVar[bool] = False

    def __init__(
        self, name: str = "resnet34", in_channels: int = 3, pretrained: bool | str = False, **kwargs: Any
    ) -> None:
        super().__init__()
        # (timm brings torchvision, and importing both takes as long as the rest of the suite without torch)
        import timm
        from timm.models.resnet import ResNet

        net = timm.create_model(name, pretrained=False, in_chans=in_channels, **kwargs)
        if not isinstance(net, ResNet) or not hasattr(net, "layer4") or hasattr(net, "layer5"):
            raise ValueError(f"StagedResNet: {name!r} is not a timm ResNet with four stages")
        self.name = name
        self.in_channels = in_channels
        self.pretrained = pretrained
        self._timm_kwargs = kwargs
        for part in (*STEM, *STAGES):
            self.add_module(part, getattr(net, part))
        self.channels = tuple(int(str(info["num_chs"])) for info in net.feature_info[1:])

    def stem(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C0, H / 4, W / 4)."""
        for part in STEM:
            x = self.get_submodule(part)(x)
        return x

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Run stage ``index`` (0 to 3) on the output of the one before it (of the stem, for 0)."""
        return self.get_submodule(STAGES[index])(x)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the outputs of the four stages, at strides 4, 8, 16 and 32."""
        outputs = []
        x = self.stem(x)
        for index in range(4):
            x = self.stage(index, x)
            outputs.append(x)
        return outputs

    def init_weights(self) -> None:
        """Load the pretrained weights, if any were asked for.

        Raises:
            PretrainedWeightsError: If they cannot be had or do not fit.
        """
        if not self.pretrained:
            return
        state = self._pretrained_state()
        missing, unexpected = self.load_state_dict(state, strict=False)
        unexpected = [key for key in unexpected if not key.startswith("fc.")]
        if missing or unexpected:
            raise PretrainedWeightsError(
                f"StagedResNet: weights {self.pretrained!r} do not fit {self.name}: missing {missing[:3]}, "
                f"unexpected {unexpected[:3]}; give weights of the same model with timm's keys"
            )

    def _pretrained_state(self) -> Mapping[str, Tensor]:
        if not isinstance(self.pretrained, bool):
            try:
                return weights_of(load_checkpoint_file(self.pretrained), self.pretrained)
            except (OSError, CheckpointError) as error:
                raise PretrainedWeightsError(
                    f"StagedResNet: pretrained weights of {self.name}: {error}"
                ) from error
        import timm

        print_log(
            f"reading ImageNet weights of {self.name} from timm, over the network if need be", "current"
        )
        try:
            net = timm.create_model(
                self.name, pretrained=True, in_chans=self.in_channels, **self._timm_kwargs
            )
        except Exception as error:  # timm raises whatever its hub client raises
            raise PretrainedWeightsError(
                f"StagedResNet: timm could not fetch pretrained weights of {self.name} ({error}). Give a "
                f"file with timm's keys, in the suite's configs by --cfg-options "
                f"model.backbone.image_encoder.pretrained=/path/to/{self.name}.safetensors, or start from "
                f"random weights by ...pretrained=False"
            ) from error
        return net.state_dict()
