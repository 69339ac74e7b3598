"""Networks of plain PyTorch in the sizes that the benchmarks speak of."""

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride, 1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, 1, 1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


def resnet_18(classes: int = 1000) -> nn.Module:
    """As He et al. 2015 have it for ImageNet (arXiv:1512.03385): 11.7 million parameters, a file of 45 MB."""
    stages = []
    channels = 64
    for filters, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        stages += [ResidualBlock(channels, filters, stride), ResidualBlock(filters, filters, 1)]
        channels = filters
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def mlp() -> nn.Module:
    """1,024 to 4,096 to 2,048 to 100: 12.8 million parameters, most of them in two products."""
    return nn.Sequential(nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 2048), nn.ReLU(), nn.Linear(2048, 100))


class Transformer(nn.Module):
    """Two layers over 64 tokens of 5,000 kinds, and a mean over them."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, norm_first=True, activation="gelu")
        self.table = nn.Embedding(5000, 128)
        self.positions = nn.Parameter(nn.init.normal_(self.table.weight.new_empty(64, 128), std=0.02))
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layers(self.table(x) + self.positions).mean(1))
        return scores
