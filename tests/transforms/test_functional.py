import itertools

import pytest
import torch
import torchvision.transforms.v2.functional as T
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from densessl.transforms import functional as D
from densessl.transforms import opencv

MEAN = torch.tensor([123.675, 116.28, 103.53])
STD = torch.tensor([58.395, 57.12, 57.375])
TOLERANCE = 1e-5


def pictures(height: int = 20, width: int = 27) -> torch.Tensor:
    """Noise, dark noise, a ramp, pure and mixed primaries, grays, black, white: (8, 3, H, W)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 3, height, width, generator=generator)
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width)[None].expand(height, width)
    ramp = torch.stack([x, y, 1 - x])
    corners = torch.randint(0, 2, (3, height, width), generator=generator).float()
    steps = torch.randint(0, 4, (3, height, width), generator=generator) / 3  # many equal channels
    gray = x.expand(3, height, width)
    black, white = torch.zeros_like(ramp), torch.ones_like(ramp)
    return torch.stack([noise[0], noise[1] / 50, ramp, corners, steps, gray, black, white])


def spread(low: float, high: float, count: int = 8) -> torch.Tensor:
    """Different values for the images, both ends among them."""
    return torch.linspace(low, high, count)[torch.randperm(count, generator=seeded(1))]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def each(images: torch.Tensor, *parameters: torch.Tensor, function) -> torch.Tensor:
    """The reference: ``function`` on one image after the other, with plain numbers."""
    values = [parameter.tolist() for parameter in parameters]
    return torch.stack([function(*args) for args in zip(images, *values, strict=True)])


def jitter_alone(column: int):
    """``color_jitter`` with one operation, the others neutral."""

    def jitter(images: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        factors = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(len(images), 1)
        factors[:, column] = values
        return D.color_jitter(images, factors, torch.arange(4).repeat(len(images), 1))

    return jitter


OPERATIONS = {
    "brightness": (jitter_alone(D.BRIGHTNESS), T.adjust_brightness, spread(0, 3), 1.0),
    "contrast": (jitter_alone(D.CONTRAST), T.adjust_contrast, spread(0, 3), 1.0),
    "saturation": (jitter_alone(D.SATURATION), T.adjust_saturation, spread(0, 3), 1.0),
    "hue": (D.adjust_hue, T.adjust_hue, spread(-0.5, 0.5), 0.0),
    "solarize": (D.solarize, T.solarize, spread(0, 1), 2.0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_torchvision(name):
    ours, theirs, values, _ = OPERATIONS[name]
    for turn in range(8):  # every value meets every picture
        images, values = pictures(), values.roll(turn)
        expected = each(images, values, function=theirs)
        torch.testing.assert_close(ours(images, values), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_neutral_value_changes_nothing_beside_others_that_do(name):
    ours, theirs, values, neutral = OPERATIONS[name]
    images, values = pictures(), values.clone()
    before = images.clone()
    values[::2] = neutral
    result = ours(images, values)
    assert torch.equal(result[::2], images[::2])
    torch.testing.assert_close(result[3], theirs(images[3], values[3].item()), atol=1e-5, rtol=0)
    assert torch.equal(images, before), "the argument was written to"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_hflip(dtype):
    images = (pictures() * 255).to(dtype)
    flip = torch.tensor([True, False, False, True] * 2)
    expected = each(images, flip, function=lambda x, on: T.horizontal_flip(x) if on else x)
    assert torch.equal(D.hflip(images, flip), expected)


def test_to_grayscale():
    images = pictures()
    gray = torch.tensor([True, False] * 4)
    result = D.to_grayscale(images, gray)
    expected = each(images, gray, function=lambda x, on: T.to_grayscale(x, 3) if on else x)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    assert torch.equal(result[1::2], images[1::2])


def jitter_one(image, factors, order):
    """Torchvision's operations in the order drawn."""
    functions = T.adjust_brightness, T.adjust_contrast, T.adjust_saturation, T.adjust_hue
    for k in order:
        image = functions[k](image, factors[k])
    return image


@pytest.mark.parametrize("strength", [(0.4, 0.4, 0.4, 0.1), (0.8, 0.8, 0.8, 0.2), (1, 1, 1, 0.5)])
def test_color_jitter_in_all_24_orders(strength):
    order = torch.tensor(list(itertools.permutations(range(4))))
    images = pictures().repeat(3, 1, 1, 1)
    strength = torch.tensor(strength)
    factors = (2 * torch.rand(24, 4, generator=seeded(2)) - 1) * strength
    factors[:, :3] += 1
    expected = each(images, factors, order, function=jitter_one)
    result = D.color_jitter(images, factors, order)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)
    assert (result - expected).abs().mean() < 1e-6
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(D.color_jitter(images, factors, order.to(dtype)), result)


def test_the_order_of_the_jitter_matters():
    image = pictures()[:1]
    factors = torch.tensor([[1.4, 0.6, 1.4, 0.1]])
    results = [
        D.color_jitter(image, factors, torch.tensor([order]))
        for order in itertools.permutations(range(4))
    ]
    for one, other in itertools.combinations(results, 2):
        assert (one - other).abs().max() > 1e-4


def test_neutral_jitter_changes_nothing_beside_others_that_do():
    images = pictures()
    factors = torch.tensor([[1.3, 0.7, 1.2, 0.1], [1.0, 1.0, 1.0, 0.0]]).repeat(4, 1)
    order = torch.stack([torch.randperm(4, generator=seeded(i)) for i in range(8)])
    result = D.color_jitter(images, factors, order)
    assert torch.equal(result[1::2], images[1::2])
    assert not torch.equal(result[0], images[0])


@pytest.mark.parametrize("side, taps", [(224, 13), (112, 7), (96, 7), (32, 3), (7, 3), (448, 25)])
def test_blur_kernel_size(side, taps):
    assert D.blur_kernel_size(side) == taps


@pytest.mark.parametrize(
    "height, width, kernel_size",
    [
        (7, 7, 13),
        (7, 9, 3),
        (16, 16, 5),
        (33, 31, 7),
        (64, 45, 13),
        (112, 96, 7),
        (97, 224, 13),
    ],
)
def test_gaussian_blur_equals_torchvision(height, width, kernel_size):
    images = pictures(height, width)
    sigma = spread(0.1, 4)

    def blur_one(image, sigma):
        return T.gaussian_blur(image, [kernel_size, kernel_size], [sigma, sigma])

    result = D.gaussian_blur(images, sigma, kernel_size)
    expected = each(images, sigma, function=blur_one)
    torch.testing.assert_close(result, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("neutral", [0.0, -1.0])
def test_no_sigma_no_blur(neutral):
    images = pictures()
    result = D.gaussian_blur(images, torch.tensor([neutral, 1.0] * 4), 5)
    assert torch.equal(result[::2], images[::2])
    assert not torch.equal(result[1], images[1])
    assert torch.equal(D.gaussian_blur(images, torch.ones(8), 1), images)


@pytest.mark.parametrize("kernel_size", [0, 4, -3, 41])
def test_impossible_kernels_are_refused(kernel_size):
    with pytest.raises(ValueError, match="kernel_size|taps"):
        D.gaussian_blur(pictures(20, 20), torch.ones(8), kernel_size)


def test_normalize():
    images = pictures()
    expected = T.normalize(images, (MEAN / 255).tolist(), (STD / 255).tolist())
    torch.testing.assert_close(D.normalize(images, MEAN / 255, STD / 255), expected)


def draws(count: int = 24, seed: int = 3) -> dict:
    """Parameters of ``augment_view`` in which every operation is on for some images."""
    generator = seeded(seed)

    def chance(probability: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) < probability

    factors = torch.rand(count, 4, generator=generator) * 1.2 + 0.4
    factors[:, 3] = torch.rand(count, generator=generator) * 0.4 - 0.2
    factors[~chance(0.8)] = torch.tensor([1.0, 1.0, 1.0, 0.0])
    orders = [torch.randperm(4, generator=generator) for _ in range(count)]
    sigma = torch.rand(count, generator=generator) * 1.9 + 0.1
    return dict(
        flip=chance(0.5),
        factors=factors,
        order=torch.stack(orders),
        gray=chance(0.3),
        sigma=sigma * chance(0.6),
        solarize_threshold=torch.where(chance(0.4), 0.5, 2.0),
        mean=MEAN,
        std=STD,
        kernel_size=5,
    )


def bytes_of_pictures() -> torch.Tensor:
    return (pictures(16, 20) * 255).round().to(torch.uint8).repeat(3, 1, 1, 1)


def augment_one(image, flip, factors, order, gray, sigma, threshold):
    image = T.to_dtype(image, torch.float32, scale=True)
    if flip:
        image = T.horizontal_flip(image)
    image = jitter_one(image, factors, order)
    if gray:
        image = T.to_grayscale(image, 3)
    if sigma > 0:
        image = T.gaussian_blur(image, [5, 5], [sigma, sigma])
    if threshold <= 1:
        image = T.solarize(image, threshold)
    return image


@pytest.fixture(params=[D, opencv], ids=["batch", "opencv"])
def augment_view(request):
    return request.param.augment_view


def test_augment_view_equals_torchvision_image_by_image(augment_view):
    images, drawn = bytes_of_pictures(), draws()
    result = augment_view(images, **drawn)
    names = ("flip", "factors", "order", "gray", "sigma", "solarize_threshold")
    expected = each(images, *(drawn[name] for name in names), function=augment_one)
    pixels = result * (STD / 255).view(3, 1, 1) + (MEAN / 255).view(3, 1, 1)
    assert (pixels - expected).abs().max() < 1 / 255
    assert (pixels - expected).abs().mean() < 1e-6


def test_augment_view_gives_float32_channels_last_and_leaves_the_input(augment_view):
    images = bytes_of_pictures()
    before = images.clone()
    result = augment_view(images, **draws())
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_augment_view_takes_any_strides(augment_view):
    images = bytes_of_pictures()
    permuted = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert permuted.stride() != images.stride()
    drawn = draws()
    assert torch.equal(augment_view(permuted, **drawn), augment_view(images, **drawn))


def neutral(count: int) -> dict:
    return dict(
        flip=torch.zeros(count, dtype=torch.bool),
        factors=torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(count, 1),
        order=torch.arange(4).repeat(count, 1),
        gray=torch.zeros(count, dtype=torch.bool),
        sigma=torch.zeros(count),
        solarize_threshold=torch.full((count,), 2.0),
    )


def test_without_draws_augment_view_only_normalises(augment_view):
    images = bytes_of_pictures()
    result = augment_view(images, **neutral(24), mean=MEAN, std=STD, kernel_size=5)
    expected = (images - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    torch.testing.assert_close(result, expected)


def test_both_ways_blur_alike_at_every_sigma():
    """OpenCV's leaves out taps of no weight."""
    images = (pictures(40, 45) * 255).round().to(torch.uint8)[:1].expand(30, -1, -1, -1)
    drawn = {**neutral(30), "sigma": torch.linspace(0.1, 2.5, 30)}
    args = dict(mean=torch.zeros(3), std=torch.full((3,), 255.0), kernel_size=13)
    one, other = (module.augment_view(images, **drawn, **args) for module in (D, opencv))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_an_image_does_not_depend_on_the_others():
    images, drawn = bytes_of_pictures(), draws()
    together = {module: module.augment_view(images, **drawn) for module in (D, opencv)}
    torch.testing.assert_close(together[D], together[opencv], atol=1e-4, rtol=0)
    for i in (0, 7, 23):
        alone = {
            k: v[i : i + 1] if k not in ("mean", "std", "kernel_size") else v
            for k, v in drawn.items()
        }
        for module, all_of_them in together.items():
            one = module.augment_view(images[i : i + 1], **alone)
            torch.testing.assert_close(one, all_of_them[i : i + 1], atol=1e-6, rtol=0)


def test_autocast_changes_nothing(augment_view):
    images, drawn = bytes_of_pictures(), draws()
    plain = augment_view(images, **drawn)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment_view(images, **drawn), plain)


@pytest.mark.parametrize("kernel_size", [0, 4, 41])
def test_augment_view_refuses_impossible_kernels(augment_view, kernel_size):
    with pytest.raises(ValueError, match="kernel_size|taps"):
        augment_view(bytes_of_pictures(), **{**draws(), "kernel_size": kernel_size})


def test_the_host_never_waits_for_an_accelerator():
    """Fake tensors have no values: asking for one, as a wait for the device does, raises."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = {k: v.to("cuda") if torch.is_tensor(v) else v for k, v in draws().items()}
        images = torch.empty(24, 3, 16, 20, dtype=torch.uint8, device="cuda")
        result = D.augment_view(images, **fake)
        with pytest.raises(DataDependentOutputException):
            bool(fake["flip"].any())
    assert result.shape == (24, 3, 16, 20) and result.device.type == "cuda"
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_the_number_of_threads_is_restored():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        opencv.augment_view(bytes_of_pictures(), **draws())
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError):
            opencv.augment_view(bytes_of_pictures(), **{**draws(), "mean": torch.zeros(5)})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_an_empty_batch_stays_empty(augment_view):
    drawn = {k: v[:0] if torch.is_tensor(v) and len(v) == 24 else v for k, v in draws().items()}
    assert augment_view(bytes_of_pictures()[:0], **drawn).shape == (0, 3, 16, 20)


@pytest.mark.slow
def test_compiled_it_is_one_graph_and_the_same():
    images, drawn = bytes_of_pictures(), draws()
    compiled = torch.compile(D.augment_view, dynamic=False, fullgraph=True)
    torch.testing.assert_close(
        compiled(images, **drawn), D.augment_view(images, **drawn), atol=1e-4, rtol=0
    )
