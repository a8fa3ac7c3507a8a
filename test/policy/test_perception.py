"""The CNN: key points, attention, and the folded network that is the same function."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lam_ros.errors import ConfigError
from lam_ros.policy.configuration import PolicyConfig
from lam_ros.policy.encoders import (
    ENCODERS,
    FEATURES,
    ArticleEncoder,
    KeyPointEncoder,
    StridedEncoder,
    pixel_grid,
    resnet18,
    spatial_softmax,
)
from lam_ros.policy.explain import draw_attention
from lam_ros.policy.perception import Perception

CAMERAS = ("front", "wrist")


def perception(encoder: str, size: tuple[int, int] = (64, 48), **more: Any) -> Perception:
    """As training leaves it: batch statistics that are not the initial ones."""
    torch.manual_seed(0)
    network = Perception(PolicyConfig(encoder=encoder, image_size=size, **more), CAMERAS)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.3, 2.0)
    return network.eval()


def pictures(count: int, size: tuple[int, int] = (64, 48)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, len(CAMERAS), size[1], size[0], 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_weights_lie_with_channels_last(encoder: str) -> None:
    """As images come: else each step would lay the weights out anew."""
    weights = [weight for weight in perception(encoder).parameters() if weight.dim() == 4]
    assert any(min(weight.shape[1:]) > 1 for weight in weights), "where it makes a difference"
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


@pytest.mark.parametrize(
    ("row", "column", "expected"), [(0, 0, (-1, -1)), (0, 8, (1, -1)), (4, 8, (1, 1)), (2, 4, (0, 0)), (2, 6, (0.5, 0))]
)
def test_a_key_point_lies_on_a_sharp_peak(row: int, column: int, expected: tuple[float, float]) -> None:
    activation = torch.zeros(1, 1, 5, 9)
    activation[0, 0, row, column] = 1.0
    points, attention = spatial_softmax(activation, torch.tensor([50.0]), pixel_grid(5, 9))
    torch.testing.assert_close(points[0, 0], torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)
    assert attention[0, 0, row, column] > 0.999


def test_key_points_are_the_expectation_of_the_softmax() -> None:
    activation, temperature = torch.randn(2, 3, 4, 6), torch.tensor([0.5, 1.0, 3.0])
    points, attention = spatial_softmax(activation, temperature, pixel_grid(4, 6))
    expected = (activation * temperature[:, None, None]).flatten(2).softmax(-1).view(2, 3, 4, 6)
    torch.testing.assert_close(attention, expected)
    torch.testing.assert_close(attention.sum((2, 3)), torch.ones(2, 3))
    torch.testing.assert_close(points[..., 0], (expected * torch.linspace(-1, 1, 6)).sum((2, 3)))
    torch.testing.assert_close(points[..., 1], (expected * torch.linspace(-1, 1, 4)[:, None]).sum((2, 3)))


def test_key_points_have_the_right_gradients() -> None:
    activation = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    temperature = torch.tensor([0.7, 2.0], dtype=torch.float64, requires_grad=True)
    grid = pixel_grid(3, 4).double()
    assert torch.autograd.gradcheck(lambda a, t: spatial_softmax(a, t, grid)[0], (activation, temperature))


@pytest.mark.parametrize(
    ("encoder", "size"),
    [
        *((encoder, size) for encoder in sorted(ENCODERS) for size in ((96, 96), (64, 48))),
        *((encoder, (24, 24)) for encoder in ("strided", "article")),
    ],
)
def test_each_camera_gives_a_row_of_features(encoder: str, size: tuple[int, int]) -> None:
    network = perception(encoder, size)
    features = network(pictures(2, size))
    assert features.shape == (2, 2, network.features)
    assert features.dtype == torch.float32
    sizes = {"strided": StridedEncoder.features, "article": ArticleEncoder.features, "resnet18": FEATURES}
    assert network.features == sizes[encoder]


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_a_row_depends_on_its_own_camera_and_sample_alone(encoder: str) -> None:
    network, images = perception(encoder), pictures(2)
    before = network(images)
    images[1, 1] = 255 - images[1, 1]
    after = network(images)
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[1, 0], before[1, 0])
    assert not torch.allclose(after[1, 1], before[1, 1])


def test_the_first_convolution_sees_pixels_from_minus_one_to_one() -> None:
    encoder = StridedEncoder((32, 24))
    pixels = encoder.pixels(torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 24, 32, 3))
    assert pixels.shape == (2, 3, 24, 32)
    seen = []
    encoder.colour.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder(pixels)
    torch.testing.assert_close(seen[0][:, 0, 0, 0], torch.tensor([-1.0, 1.0]))


def test_one_camera_is_a_row_of_all() -> None:
    network, images = perception("strided"), pictures(1)
    rows = torch.stack([network.one(index, images[0, index]) for index in range(2)])
    torch.testing.assert_close(rows, network(images)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_folding_keeps_the_function(encoder: str) -> None:
    network, images = perception(encoder), pictures(3)
    features, attention = network(images), network.attention(0, images[0, 0])
    network.fold()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(torch.nan)  # what is folded looks at it no more
    torch.testing.assert_close(network(images), features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.attention(0, images[0, 0]), attention, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_attention_covers_the_image_and_peaks_at_one(encoder: str) -> None:
    attention = perception(encoder).attention(1, pictures(1)[0, 1]).detach()
    assert attention.shape == (48, 64)
    assert attention.min() >= 0
    assert attention.max() == pytest.approx(1.0)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_encoder_attention_sums_to_one(encoder: str) -> None:
    network = perception(encoder)
    encoder_of_camera = network.encoders[0]
    sums = encoder_of_camera.attention(encoder_of_camera.pixels(pictures(3)[:, 0])).sum((1, 2))
    torch.testing.assert_close(sums, torch.ones(3))


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_every_weight_is_trained(encoder: str) -> None:
    network = perception(encoder).train()
    network(pictures(4)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("encoder", ["strided", "resnet18"])
@pytest.mark.parametrize("normalisation", ["batch", "group", "none"])
def test_a_row_does_not_depend_on_the_rest_of_the_batch_in_use(encoder: str, normalisation: str) -> None:
    network, images = perception(encoder, normalisation=normalisation), pictures(3)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), atol=1e-4, rtol=1e-4)
    kinds = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm, "none": ()}
    found = [module for module in network.modules() if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm))]
    assert all(isinstance(module, kinds[normalisation]) for module in found)
    assert bool(found) == (normalisation != "none")


class FakeTimm(types.ModuleType):
    """timm as far as it is used: one convolutional backbone, which takes no image size."""

    @staticmethod
    def create_model(name: str, pretrained: bool, features_only: bool) -> nn.Module:
        assert not pretrained, "nothing may be downloaded"
        assert features_only
        if name not in ("tiny_net", "tiny_swin", "odd_net"):
            raise RuntimeError(f"Unknown model ({name})")

        class Backbone(nn.Module):
            feature_info = types.SimpleNamespace(reduction=lambda: [4, 16], channels=lambda: [4, 6])
            default_cfg = pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}

            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = nn.Conv2d(3, 4, 3, 4, 1), nn.Conv2d(4, 6, 3, 4, 1)

            def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
                first = torch.relu(self.first(pixels))
                last = torch.relu(self.second(first))
                return [first, {"tiny_net": last, "tiny_swin": last.permute(0, 2, 3, 1), "odd_net": first}[name]]

        return Backbone()

    @staticmethod
    def list_models() -> list[str]:
        return ["tiny_net", "large_net"]


def test_a_timm_backbone_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", FakeTimm("timm"))
    network, images = perception("timm:tiny_net"), pictures(2)
    features = network(images)
    assert features.shape == (2, 2, FEATURES)
    encoder = network.encoders[0]
    torch.testing.assert_close(encoder.mean.flatten(), 255 * torch.tensor([0.5, 0.4, 0.3]))
    assert network.attention(0, images[0, 0]).shape == (48, 64)
    torch.testing.assert_close(encoder.scale, torch.tensor([64 / 48, 48 / 32]))
    with pytest.raises(ConfigError, match=r"cannot make the encoder 'tiny_nut' .*Names like it: tiny_net"):
        perception("timm:tiny_nut")
    with pytest.raises(ConfigError, match=r"its map has the shape \[1, 4, 12, 16\], without 6 channels"):
        perception("timm:odd_net")


def test_a_timm_backbone_whose_maps_have_their_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", FakeTimm("timm"))
    network, last = perception("timm:tiny_net"), perception("timm:tiny_swin")
    last.load_state_dict(network.state_dict())
    images = pictures(2)
    torch.testing.assert_close(last(images), network(images))


@pytest.mark.parametrize("name", ["timm:hf-hub:someone/model", "timm:../model", "timm:"])
def test_a_backbone_that_would_be_fetched_is_no_encoder(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no encoder"):
        PolicyConfig(encoder=name)


def test_a_thing_keeps_its_key_points_where_its_picture_was_displaced() -> None:
    encoder = perception("strided", (96, 96)).encoder(0)
    assert isinstance(encoder, StridedEncoder)
    nn.init.constant_(encoder.temperature, 1e4)  # a key point is where its channel peaks
    picture = torch.full((1, 96, 96, 3), 128, dtype=torch.uint8)
    picture[:, 40:48, 32:40] = torch.tensor([250, 20, 20], dtype=torch.uint8)
    moved = picture.roll((16, 24), (1, 2))
    displacement = torch.tensor([[2 * 24 / 96, 2 * 16 / 96]])
    points = 2 * encoder.channels
    before, untold = encoder(encoder.pixels(picture)), encoder(encoder.pixels(moved))
    told = encoder(encoder.pixels(moved), displacement)
    follows = (before - untold)[:, :points].abs() > 0.05
    assert follows.sum() > 20, "most channels peak at the thing"
    torch.testing.assert_close(told[:, :points][follows], before[:, :points][follows], atol=0.03, rtol=0)
    torch.testing.assert_close(told[:, points:], untold[:, points:])  # peaks say how strong, not where


@pytest.mark.parametrize(("size", "stride"), [((128, 128), 32), ((96, 128), 32), ((224, 168), 14), ((165, 130), 20)])
def test_so_do_those_of_a_backbone_whose_map_ends_inside_the_picture(size: tuple[int, int], stride: int) -> None:
    """A map of each cell's mean colour is displaced just as the picture is."""
    width, height = size
    encoder = KeyPointEncoder(nn.AvgPool2d(stride), stride, size, (0.0,) * 3, (1.0,) * 3)
    encoder.temperature.data.fill_(1e4)
    nn.init.constant_(encoder.reduce.weight, 1.0)
    encoder.linear = nn.Identity()
    picture = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    picture[:, stride : 2 * stride, stride : 2 * stride] = 255
    moved = picture.roll((2 * stride, stride), (1, 2))
    before = encoder(encoder.pixels(picture))
    told = encoder(encoder.pixels(moved), torch.tensor([[2 * stride / width, 4 * stride / height]]))
    assert (encoder(encoder.pixels(moved)) - before).abs().min() > 0.1
    torch.testing.assert_close(told, before)


@pytest.mark.parametrize("share_encoder", [False, True])
def test_each_camera_is_told_of_its_own_displacement(share_encoder: bool) -> None:
    network, images = perception("resnet18", share_encoder=share_encoder), pictures(3)
    displacement = torch.zeros(3, 2, 2)
    displacement[1, 1] = torch.tensor([0.3, -0.1])
    plain, told = network(images), network(images, displacement)
    moved = (plain - told).abs().amax(-1) > 1e-4
    assert moved.nonzero().tolist() == [[1, 1]]
    linear, shift = network.encoder(1).linear, network.encoder(1).scale * displacement[1, 1]
    expected = linear.weight @ shift.repeat(linear.in_features // 2)
    torch.testing.assert_close((plain - told)[1, 1], expected, atol=1e-5, rtol=1e-4)


def test_a_shared_encoder_is_one_for_all_cameras() -> None:
    shared, apart = perception("strided", share_encoder=True), perception("strided")
    count = sum(parameter.numel() for parameter in shared.parameters())
    assert 2 * count == sum(parameter.numel() for parameter in apart.parameters())
    images = pictures(3)
    images[:, 1] = images[:, 0]
    features = shared(images)
    torch.testing.assert_close(features[:, 1], features[:, 0])
    torch.testing.assert_close(shared.one(1, images[2, 1]), features[2, 1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(apart(images)[:, 1], apart(images)[:, 0])


def test_resnet18_has_its_published_size() -> None:
    """11.18 million parameters without the classifier (He et al. 2016; torchvision counts 11,176,512)."""
    assert sum(parameter.numel() for parameter in resnet18("batch").parameters()) == 11_176_512


def test_an_encoder_that_cannot_be_made_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="timm"):
        perception("timm:no_such_net")
    with pytest.raises(ConfigError, match=r"image_size \[32, 24\] leaves this encoder a map of 1x1"):
        perception("resnet18", (32, 24))
    with pytest.raises(ConfigError, match="there is no encoder 'resnet'; there are strided, article, resnet18, and t"):
        PolicyConfig(encoder="resnet")


def test_drawn_attention_leaves_other_pixels_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw_attention(image, np.zeros((5, 6), np.float32)), image)
    attention = np.zeros((20, 30), np.float32)
    attention[:10] = 1.0
    drawn = draw_attention(image, attention)
    np.testing.assert_array_equal(drawn[10:], image[10:])
    assert np.abs(drawn[:10].astype(int) - image[:10]).mean() > 10
