"""Encoders: from one camera's pixels to a row of features. Each is one value of ``PolicyConfig.encoder``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lam_ros.errors import ConfigError
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.normalisation import BatchNorm

KEY_POINTS, FEATURES = (
    32,
    64,
)  # of ResNet18 and timm's backbones, as robomimic's (Mandlekar et al. 2021, arXiv 2108.03298)
GROUP_CHANNELS = 16


def pixel_grid(height: int, width: int) -> Tensor:
    """(x, y) of each pixel from -1 to 1, row by row: (height * width, 2)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def grid_scale(image_size: tuple[int, int], rows: int, columns: int, stride: int) -> Tensor:
    """How far a key point goes (2,) when its picture goes by one in units of which a picture has 2 each way.

    The grid's ends are the centres of a map's outermost cells, which lie closer than the picture's edges or, where
    convolutions are padded, just on them.

    Args:
        stride: pixels from cell to cell.
    """
    sides = zip(image_size, (columns, rows), strict=True)
    return torch.tensor([pixels / (stride * (cells - 1)) if cells > 1 else 0.0 for pixels, cells in sides])


def moved_back(points: Tensor, displacement: Tensor | None, scale: Tensor) -> Tensor:
    """Key points (B, K, 2) of displaced pictures as they lay before; ``displacement`` (B, 2), ``grid_scale`` (2,)."""
    return points if displacement is None else points - (scale * displacement)[:, None]


def spatial_softmax(activation: Tensor, temperature: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Expected position of each channel's activation (Levine et al. 2016, arXiv 1504.00702, section 5.2).

    Args:
        activation: (B, K, h, w).
        temperature: (K,), multiplied in before the softmax.
        grid: ``pixel_grid(h, w)``.

    Returns:
        Key points (B, K, 2) as (x, y) from -1 to 1, and the attention maps (B, K, h, w), each summing to 1.
    """
    attention = (activation.flatten(2) * temperature[None, :, None]).softmax(-1)
    return attention @ grid, attention.view_as(activation)


class Encoder(nn.Module):
    """Pixels float (B, 3, H, W) from 0 to 255 to features (B, features).

    A picture may have been displaced in training. Encoders with key points then say where these lay before, from
    ``displacement`` (B, 2) as (right, down), where a picture's width and height are 2: so the CNN must find a thing by
    its looks, while what follows still learns exact places. The others cannot, and see a displaced picture.
    """

    features: int

    def forward(self, pixels: Tensor, displacement: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def pixels(images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to what ``forward`` takes."""
        # Under autocast straight to bf16, which holds 0 to 255 exactly: one pass over the trainer's largest array less.
        dtype = torch.get_autocast_dtype(images.device.type) if torch.is_autocast_enabled(images.device.type) else None
        return images.permute(0, 3, 1, 2).to(dtype or torch.float32)

    def attention(self, pixels: Tensor) -> Tensor:
        """Where it looks: (B, h, w), each map summing to 1."""
        raise NotImplementedError

    def fold(self) -> None:
        """Fold batch normalisations into convolutions: the same function, faster."""


def normalisation_layer(kind: str, channels: int) -> nn.Module:
    """What follows a convolution: ``batch`` trains faster on a CPU and folds away for use; ``group``; ``none``."""
    if kind == "batch":
        return BatchNorm(channels)
    return nn.GroupNorm(max(1, channels // GROUP_CHANNELS), channels) if kind == "group" else nn.Identity()


@dataclass(frozen=True)
class _Convolution:
    """A convolution and the ReLU after it as bare tensors: on one image, nn.Module's own cost is a third of all."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @classmethod
    def of(cls, convolution: nn.Conv2d, bias: Tensor) -> _Convolution:
        assert not isinstance(convolution.padding, str)
        weight = convolution.weight.detach().contiguous(memory_format=torch.channels_last)
        if bias.dim() == 4:
            bias = bias.contiguous(memory_format=torch.channels_last)
        return cls(weight, bias.detach(), convolution.stride, convolution.padding)


class StridedEncoder(Encoder):
    """Three strided convolutions, then a spatial softmax: each channel gives its key point (x, y) and its peak.

    The peak tells absence from presence. The convolutions are not told where a pixel is: with few demonstrations they
    would learn places by heart instead of what lies there.
    """

    channels = 64
    features = 3 * channels
    stride = 8  # of all convolutions

    grid: Tensor
    scale: Tensor

    def __init__(self, image_size: tuple[int, int], normalisation: str = "batch") -> None:
        super().__init__()
        width, height = image_size
        bias = normalisation == "none"

        def block(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
            return [convolution, normalisation_layer(normalisation, outputs), nn.ReLU()]

        self.colour = nn.Conv2d(3, 32, 8, 4, 4, bias=bias)
        first = [normalisation_layer(normalisation, 32), nn.ReLU()]
        self.cnn = nn.Sequential(*first, *block(32, 64, 4, 2), *block(64, self.channels, 3, 1))
        self.temperature = nn.Parameter(torch.ones(self.channels))
        with torch.no_grad():
            _, _, rows, columns = self.cnn(self.colour(torch.zeros(1, 3, height, width))).shape
        self.register_buffer("grid", pixel_grid(rows, columns), persistent=False)
        self.register_buffer("scale", grid_scale(image_size, rows, columns, self.stride), persistent=False)
        self._image_size = image_size
        self._folded: list[_Convolution] = []

    def _activation(self, pixels: Tensor) -> Tensor:
        if not self._folded:
            activation: Tensor = self.cnn(self.colour(pixels / 127.5 - 1.0))
            return activation.float()
        for layer in self._folded:
            pixels = torch.conv2d(pixels, layer.weight, None, layer.stride, layer.padding).add_(layer.bias).relu_()
        return pixels

    def forward(self, pixels: Tensor, displacement: Tensor | None = None) -> Tensor:
        activation = self._activation(pixels)
        points, _ = spatial_softmax(activation, self.temperature, self.grid)
        points = moved_back(points, displacement, self.scale)
        # A peak of about 10 would drown coordinates that end at 1.
        return torch.cat([points.flatten(1), activation.amax((2, 3)) * 0.1], 1)

    def attention(self, pixels: Tensor) -> Tensor:
        activation = self._activation(pixels)
        _, attention = spatial_softmax(activation, self.temperature, self.grid)
        focus = attention.amax((2, 3)) * activation.amax((2, 3))  # sharp and strong channels say more
        combined = (attention * focus[:, :, None, None]).sum(1)
        return combined / combined.sum((1, 2), keepdim=True).clamp_min(1e-12)

    @torch.no_grad()
    def fold(self) -> None:
        first = self.cnn[0]
        if not isinstance(first, nn.BatchNorm2d):
            return
        fused = fuse_conv_bn_eval(self.colour, first)
        assert fused.bias is not None
        # The -1 of the scaling becomes a map: at the border, where pixels are padded with 0, it has less to say.
        width, height = self._image_size
        bias = fused.bias[:, None, None] - torch.conv2d(
            torch.ones(1, 3, height, width).to(fused.weight), fused.weight, None, fused.stride, fused.padding
        )
        fused.weight.div_(127.5)
        self._folded = [_Convolution.of(fused, bias)]
        for convolution, normalisation in zip(list(self.cnn)[2::3], list(self.cnn)[3::3], strict=True):
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(normalisation, nn.BatchNorm2d)
            fused = fuse_conv_bn_eval(convolution, normalisation)
            assert fused.bias is not None
            self._folded.append(_Convolution.of(fused, fused.bias[:, None, None]))


class ArticleEncoder(Encoder):
    """The articles' network: conv 5x5 to 32, conv 5x5 to 64, each with ReLU and pooling, then 64*5*5 -> 512 -> 256.

    Pooling to 5x5 after the second convolution gives the articles' 64*5*5 at every image size.
    """

    features = 256

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.pool = nn.AdaptiveAvgPool2d(5)
        self.linear = nn.Sequential(nn.Flatten(), nn.Linear(64 * 5 * 5, 512), nn.ReLU(), nn.Linear(512, 256))

    def forward(self, pixels: Tensor, displacement: Tensor | None = None) -> Tensor:
        features: Tensor = self.linear(self.pool(self.cnn(pixels / 127.5 - 1.0)))
        return features.float()

    def attention(self, pixels: Tensor) -> Tensor:
        energy = self.cnn(pixels / 127.5 - 1.0).float().square().sum(1)
        return energy / energy.sum((1, 2), keepdim=True).clamp_min(1e-12)


class KeyPointEncoder(Encoder):
    """robomimic's recipe: a backbone, 32 key points of its last feature map by spatial softmax, 64 features of them.

    Args:
        backbone: scaled pixels (B, 3, H, W) to (B, channels, h, w).
        stride: of the backbone: pixels from cell to cell of that map.
        image_size: (width, height) of the images.
        mean, std: of each colour channel, in grey levels of 255.

    Raises:
        ConfigError: the images are too small for the backbone.
    """

    features = FEATURES
    grid: Tensor
    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        stride: int,
        image_size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        was_training = backbone.training
        with torch.no_grad():
            _, channels, rows, columns = backbone.eval()(torch.zeros(1, 3, image_size[1], image_size[0])).shape
        backbone.train(was_training)
        if rows * columns < 4:
            raise ConfigError(
                f"image_size {list(image_size)} leaves this encoder a map of {columns}x{rows}, on which there is no "
                "place to find; it needs about 64 x 64 pixels."
            )
        self.reduce = nn.Conv2d(channels, KEY_POINTS, 1)
        self.temperature = nn.Parameter(torch.ones(KEY_POINTS))
        self.register_buffer("grid", pixel_grid(rows, columns), persistent=False)
        self.register_buffer("scale", grid_scale(image_size, rows, columns, stride), persistent=False)
        self.linear = nn.Linear(2 * KEY_POINTS, FEATURES)
        self._takes_pixels = False

    def _key_points(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        scaled = pixels if self._takes_pixels else (pixels - self.mean) / self.std
        activation = self.reduce(self.backbone(scaled)).float()
        return spatial_softmax(activation, self.temperature, self.grid)

    def forward(self, pixels: Tensor, displacement: Tensor | None = None) -> Tensor:
        points, _ = self._key_points(pixels)
        features: Tensor = self.linear(moved_back(points, displacement, self.scale).flatten(1))
        return features.float()

    def attention(self, pixels: Tensor) -> Tensor:
        return self._key_points(pixels)[1].mean(1)

    @torch.no_grad()
    def fold(self) -> None:
        for module in self.backbone.modules():
            if isinstance(module, _Normalised) and isinstance(module.normalisation, nn.BatchNorm2d):
                module.convolution = fuse_conv_bn_eval(module.convolution, module.normalisation)
                module.normalisation = nn.Identity()
        layers = list(self.backbone.children())
        if isinstance(layers[0], _Normalised) and not self._takes_pixels:
            self.backbone = nn.Sequential(layers[0].take_pixels(self.mean, self.std), *layers)
            self._takes_pixels = True


class _Normalised(nn.Module):
    """A convolution and its normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, kind: str) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=kind == "none")
        self.normalisation = normalisation_layer(kind, outputs)

    def forward(self, values: Tensor) -> Tensor:
        normalised: Tensor = self.normalisation(self.convolution(values))
        return normalised

    def take_pixels(self, mean: Tensor, std: Tensor) -> nn.Module:
        """Fold the scaling (pixels - mean) / std into the convolution; returns the padding that then goes before it.

        What was padded with 0 is now padded with what the scaling made 0, so ``mean`` must be one grey.
        """
        convolution, grey = self.convolution, float(mean[0])
        assert bool((mean == grey).all())
        assert not isinstance(convolution.padding, str)
        convolution.weight.div_(std)
        less = grey * convolution.weight.sum((1, 2, 3))
        convolution.bias = nn.Parameter(-less if convolution.bias is None else convolution.bias - less)
        padding, convolution.padding = convolution.padding[0], (0, 0)
        return nn.ConstantPad2d(padding, grey)


class _Residual(nn.Module):
    """y = ReLU(F(x) + shortcut(x)) with two 3x3 convolutions in F (He et al. 2016, arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int, kind: str) -> None:
        super().__init__()
        self.first = _Normalised(inputs, outputs, 3, stride, kind)
        self.second = _Normalised(outputs, outputs, 3, 1, kind)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _Normalised(inputs, outputs, 1, stride, kind)

    def forward(self, values: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(values))) + self.shortcut(values))


def resnet18(kind: str) -> nn.Sequential:
    """ResNet18 without its pooling and classifier: (B, 3, H, W) to (B, 512, H/32, W/32)."""
    stages = [_Residual(inputs, outputs, stride, kind) for inputs, outputs, stride in _RESNET18]
    return nn.Sequential(_Normalised(3, 64, 7, 2, kind), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *stages)


_RESNET18 = (
    *((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)),
    *((128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)),
)


class _LastMap(nn.Module):
    """The last feature map of a timm model, (B, C, H, W); some models give (B, H, W, C)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._channels = int(model.feature_info.channels()[-1])

    def forward(self, pixels: Tensor) -> Tensor:
        last: Tensor = self.model(pixels)[-1]
        if last.shape[1] != self._channels and last.shape[-1] == self._channels:
            last = last.permute(0, 3, 1, 2)
        if last.shape[1] != self._channels:
            raise ValueError(f"its map has the shape {list(last.shape)}, without {self._channels} channels")
        return last


def timm_encoder(name: str, image_size: tuple[int, int]) -> KeyPointEncoder:
    """Any backbone of the timm library that gives feature maps, without weights: nothing is downloaded.

    Raises:
        ConfigError: timm is not installed, knows no such model, or the model cannot take this image size.
    """
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # torchvision, which timm needs, raises the second where it is unfit
        raise ConfigError(
            f"the encoder timm:{name} needs a working timm ({error}): pip install timm, with the torchvision "
            "that belongs to your torch."
        ) from None
    settings: dict[str, Any] = {"pretrained": False, "features_only": True}
    try:
        try:
            model = timm.create_model(name, img_size=image_size[::-1], **settings)  # transformers must be told
        except TypeError:  # convolutions need not, and do not take it
            model = timm.create_model(name, **settings)
        cfg = model.pretrained_cfg if isinstance(model.pretrained_cfg, dict) else model.default_cfg
        mean, std = (tuple(255.0 * value for value in cfg[key]) for key in ("mean", "std"))
        return KeyPointEncoder(_LastMap(model), model.feature_info.reduction()[-1], image_size, mean, std)
    except (RuntimeError, AssertionError, ValueError, KeyError) as error:
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "see timm.list_models()"
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"timm cannot make the encoder {name!r} ({reason}). Names like it: {near}.") from None


def make_encoder(config: PolicyConfig) -> Encoder:
    """The encoder that a configuration names; raises ConfigError where it cannot be made."""
    if config.encoder.startswith("timm:"):
        return timm_encoder(config.encoder.removeprefix("timm:"), config.image_size)
    return ENCODERS[config.encoder](config)


_GREY = (127.5, 127.5, 127.5)
ENCODERS: dict[str, Callable[[PolicyConfig], Encoder]] = {
    "strided": lambda config: StridedEncoder(config.image_size, config.normalisation),
    "article": lambda config: ArticleEncoder(),
    "resnet18": lambda config: KeyPointEncoder(resnet18(config.normalisation), 32, config.image_size, _GREY, _GREY),
}
