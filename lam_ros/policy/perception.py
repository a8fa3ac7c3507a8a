"""The perception module: one CNN a camera, from pixels to a row of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lam_ros.policy.configuration import PolicyConfig


def pixel_grid(height: int, width: int) -> Tensor:
    """(x, y) of each pixel from -1 to 1, row by row: (height * width, 2)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


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
    """Pixels float (B, 3, H, W) from 0 to 255 to features (B, features)."""

    features: int

    def forward(self, pixels: Tensor) -> Tensor:
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


def _block(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    # BatchNorm rather than GroupNorm: it trains faster on a CPU and folds into the convolution for use.
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class StridedEncoder(Encoder):
    """Three strided convolutions that also see each pixel's coordinates, then a spatial softmax.

    A channel gives its key point (x, y) and its peak, so that absence can be told from presence. The first convolution
    sees (r, g, b, x, y); since x and y are the same in every image, their share is computed once a batch.
    """

    channels = 64
    features = 3 * channels

    coordinates: Tensor
    grid: Tensor

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__()
        width, height = image_size
        self.colour = nn.Conv2d(3, 32, 8, 4, 4, bias=False)
        self.place = nn.Conv2d(2, 32, 8, 4, 4, bias=False)
        self.cnn = nn.Sequential(nn.BatchNorm2d(32), nn.ReLU(), *_block(32, 64, 4, 2), *_block(64, self.channels, 3, 1))
        self.temperature = nn.Parameter(torch.ones(self.channels))
        coordinates = pixel_grid(height, width).T.reshape(1, 2, height, width)
        self.register_buffer("coordinates", coordinates, persistent=False)
        with torch.no_grad():
            _, _, rows, columns = self.cnn(self.colour(torch.zeros(1, 3, height, width))).shape
        self.register_buffer("grid", pixel_grid(rows, columns), persistent=False)
        self._folded: list[_Convolution] = []

    def _activation(self, pixels: Tensor) -> Tensor:
        if not self._folded:
            activation: Tensor = self.cnn(self.colour(pixels / 127.5 - 1.0) + self.place(self.coordinates))
            return activation.float()
        for layer in self._folded:
            pixels = torch.conv2d(pixels, layer.weight, None, layer.stride, layer.padding).add_(layer.bias).relu_()
        return pixels

    def forward(self, pixels: Tensor) -> Tensor:
        activation = self._activation(pixels)
        points, _ = spatial_softmax(activation, self.temperature, self.grid)
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
        assert isinstance(first, nn.BatchNorm2d)
        # What is the same in every image, the coordinates' share and the -1 of the pixels' scaling, becomes one map.
        same = self.place(self.coordinates) - self.colour(
            torch.ones_like(self.coordinates[:, :1]).expand(-1, 3, -1, -1)
        )
        fused = fuse_conv_bn_eval(self.colour, first)
        assert first.running_var is not None
        assert fused.bias is not None
        scale = first.weight / torch.sqrt(first.running_var + first.eps)
        bias = same * scale[:, None, None] + fused.bias[:, None, None]
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

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.linear(self.pool(self.cnn(pixels / 127.5 - 1.0)))
        return features.float()

    def attention(self, pixels: Tensor) -> Tensor:
        energy = self.cnn(pixels / 127.5 - 1.0).float().square().sum(1)
        return energy / energy.sum((1, 2), keepdim=True).clamp_min(1e-12)


class Perception(nn.Module):
    """One encoder for each camera.

    Args:
        config: which encoder, and the image size.
        cameras: their names, in the robot's order.
    """

    def __init__(self, config: PolicyConfig, cameras: Sequence[str]) -> None:
        super().__init__()
        self.cameras = tuple(cameras)
        self.encoders = nn.ModuleList(
            StridedEncoder(config.image_size) if config.encoder == "strided" else ArticleEncoder() for _ in cameras
        )
        encoder_class = StridedEncoder if config.encoder == "strided" else ArticleEncoder
        self.features: int = encoder_class.features
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W, 3) RGB to features (B, C, D)."""
        rows = [self._rows(i, images[:, i]) for i in range(len(self.cameras))]
        return torch.stack(rows, 1)

    def one(self, camera: int, image: Tensor) -> Tensor:
        """Features (D,) of one camera's uint8 (H, W, 3) image: a row of what ``forward`` gives."""
        return self._rows(camera, image[None])[0]

    def _rows(self, camera: int, images: Tensor) -> Tensor:
        encoder = self.encoders[camera]
        assert isinstance(encoder, Encoder)
        return encoder(encoder.pixels(images))

    def attention(self, camera: int, image: Tensor) -> Tensor:
        """Where the CNN of one camera looks in one uint8 (H, W, 3) image: (H, W), from 0 to 1 at its peak."""
        encoder = self.encoders[camera]
        assert isinstance(encoder, Encoder)
        heat = encoder.attention(encoder.pixels(image[None]))[:, None]
        heat = functional.interpolate(heat, size=image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        return heat / heat.max().clamp_min(1e-12)

    def fold(self) -> Perception:
        """Fold each batch normalisation into its convolution: the same function, faster. For use only, in place."""
        self.eval()
        for encoder in self.encoders:
            assert isinstance(encoder, Encoder)
            encoder.fold()
        return self
