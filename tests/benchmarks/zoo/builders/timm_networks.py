"""Architectures of timm, in their smallest configuration or a smaller one, without pretrained weights."""

try:
    import torchvision  # noqa: F401 -- timm imports it
except RuntimeError:
    from tests.benchmarks.zoo.builders import torchvision_names  # noqa: F401

import timm
from timm.models.densenet import DenseNet
from timm.models.mlp_mixer import MlpMixer
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from tests.benchmarks.zoo.builders.built import Built
from tests.benchmarks.zoo.builders.torch_exports import built, images

_CLASSES = 10


def _of_64_pixels(network: nn.Module) -> Built:
    return built(network, images(3, 64))


def _created(name: str) -> Built:
    return _of_64_pixels(timm.create_model(name, pretrained=False, num_classes=_CLASSES))


def resnet() -> Built:
    return _created("resnet10t")


def resnext() -> Built:
    """Grouped convolutions and squeeze-and-excitation."""
    return _created("seresnext26d_32x4d")


def densenet() -> Built:
    return _of_64_pixels(DenseNet(growth_rate=12, block_config=(3, 4, 4), num_classes=_CLASSES))


def mobilenetv2() -> Built:
    return _created("mobilenetv2_050")


def mobilenetv3() -> Built:
    return _created("mobilenetv3_small_050")


def efficientnet() -> Built:
    return _created("efficientnet_b0")


def convnext() -> Built:
    return _created("convnext_atto")


def vit() -> Built:
    return _of_64_pixels(timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, num_classes=_CLASSES))


def swin() -> Built:
    """Two windows a side, shifted ones masked, patches merged twice."""
    network = SwinTransformer(img_size=64, window_size=4, embed_dim=48, depths=(2, 2, 2), num_heads=(2, 4, 8), num_classes=_CLASSES)
    return _of_64_pixels(network)


def mixer() -> Built:
    return _of_64_pixels(MlpMixer(img_size=64, patch_size=8, num_blocks=4, embed_dim=96, num_classes=_CLASSES))
