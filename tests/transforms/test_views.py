import io
import random
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.correspondence import cell_centers
from densessl.errors import UserError
from densessl.structures import SampleKey, ViewRecord
from densessl.transforms import PRESETS, MultiView, View
from densessl.transforms.views import crop_and_resize


def jpeg(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=95)
    return data.getvalue()


def png(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def tensors(record):
    return ViewRecord(*map(torch.tensor, record))


def draws(view, count=4000, width=500, height=375):
    return [tensors(view.draw(random.Random(i), width, height)) for i in range(count)]


def sample(transform, file, number=0, epoch=0, seed=0):
    """Views of one image and their records, as tensors without batch axis."""
    views, records = transform(file, SampleKey(seed, epoch, number))
    return views, tuple(map(tensors, records))


@pytest.mark.slow
def test_crops_have_the_distribution_of_random_resized_crop():
    records = draws(View(scale=(0.2, 1.0)))
    box = torch.stack([r.box for r in records])
    width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    area, ratio = width * height / (500 * 375), width / height
    assert box.min() == 0 and box[:, 2].max() == 500 and box[:, 3].max() == 375
    assert area.min() > 0.19 and area.max() <= 1.0
    assert ratio.min() > 0.74 and ratio.max() < 1.35
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.empty(3, 375, 500)
    reference = torch.tensor(
        [RandomResizedCrop.get_params(image, (0.2, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)]
    ).double()
    theirs = reference[:, 2] * reference[:, 3] / (500 * 375)
    for q in (0.1, 0.5, 0.9):
        assert area.double().quantile(q) == pytest.approx(theirs.quantile(q).item(), abs=0.03)
    wide = (reference[:, 3] / reference[:, 2]).log().mean()
    assert ratio.double().log().mean() == pytest.approx(wide.item(), abs=0.012)


def test_a_crop_that_never_fits_falls_back_to_the_centre():
    box = View(scale=(1.0, 1.0)).draw(random.Random(0), 400, 100).box
    assert box == (133, 0, 266, 100)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_draw_with_their_probabilities(name):
    view = View(**PRESETS[name])
    records = draws(view, 2000)
    share = lambda flags: np.mean([bool(f) for f in flags])  # noqa: E731
    assert share(r.flip for r in records) == pytest.approx(0.5, abs=0.04)
    assert share(r.gray for r in records) == pytest.approx(view.gray_prob, abs=0.04)
    assert share(r.blur_sigma > 0 for r in records) == pytest.approx(view.blur_prob, abs=0.04)
    assert share(r.solarize < 1 for r in records) == pytest.approx(view.solarize_prob, abs=0.04)
    jitter = torch.stack([r.jitter for r in records])
    neutral = (jitter == torch.tensor([1.0, 1, 1, 0])).all(1)
    if view.jitter_prob:
        assert 1 - neutral.float().mean() == pytest.approx(view.jitter_prob, abs=0.04)
        strengths = torch.tensor(view.jitter)
        drawn = (jitter[~neutral] - torch.tensor([1.0, 1, 1, 0])).abs()
        assert (drawn <= strengths + 1e-6).all() and (drawn.amax(0) > 0.9 * strengths).all()
    else:
        assert neutral.all()


def test_presets_have_the_strengths_of_the_papers():
    """Where they differ: MoCo's, PIRL's, SimCLR's and BYOL's appendices, AMDIM's code."""
    views = {name: View(**options) for name, options in PRESETS.items()}
    probabilities = {
        name: (v.scale[0], v.jitter_prob, v.gray_prob, v.blur_prob, v.solarize_prob)
        for name, v in views.items()
    }
    assert probabilities == dict(
        moco_v1=(0.2, 1.0, 0.2, 0.0, 0.0),
        pirl=(0.08, 1.0, 0.2, 0.0, 0.0),
        moco_v2=(0.2, 0.8, 0.2, 0.5, 0.0),
        simclr=(0.08, 0.8, 0.2, 0.5, 0.0),
        byol_1=(0.08, 0.8, 0.2, 1.0, 0.0),
        byol_2=(0.08, 0.8, 0.2, 0.1, 0.2),
        amdim=(0.3, 0.8, 0.25, 0.0, 0.0),
        crop_flip=(0.08, 0.0, 0.0, 0.0, 0.0),
    )
    assert {name: v.jitter for name, v in views.items()} == dict(
        moco_v1=(0.4, 0.4, 0.4, 0.4),
        pirl=(0.4, 0.4, 0.4, 0.2),
        moco_v2=(0.4, 0.4, 0.4, 0.1),
        simclr=(0.8, 0.8, 0.8, 0.2),
        byol_1=(0.4, 0.4, 0.2, 0.1),
        byol_2=(0.4, 0.4, 0.2, 0.1),
        amdim=(0.4, 0.4, 0.4, 0.1),
        crop_flip=(0, 0, 0, 0),
    )


def test_a_factor_of_the_jitter_is_never_below_0():
    records = draws(View(jitter=(1.5, 1.5, 1.5, 0.0), jitter_prob=1.0), 100)
    assert all((r.jitter[:3] >= 0).all() for r in records)


def test_jitter_orders_are_uniform():
    orders = [tuple(r.jitter_order.tolist()) for r in draws(View(), 4800)]
    counts = {order: orders.count(order) for order in set(orders)}
    assert len(counts) == 24 and 130 < min(counts.values()) and max(counts.values()) < 270


def test_blur_scales_with_the_side():
    sigma = lambda size: max(  # noqa: E731
        float(r.blur_sigma) for r in draws(View(size=size, blur_prob=1.0), 500)
    )
    assert 1.95 < sigma(224) <= 2.0 and 0.97 < sigma(112) <= 1.0


def test_a_changed_probability_moves_nothing_else():
    plain, gray = View(), View(gray_prob=1.0, blur_prob=1.0)
    for a, b in zip(draws(plain, 20), draws(gray, 20), strict=True):
        assert torch.equal(a.box, b.box) and a.flip == b.flip and b.gray
        assert torch.equal(a.jitter_order, b.jitter_order)


def test_a_pixel_painted_in_the_source_is_found_in_the_cell_that_claims_it():
    """The geometry of the whole path: file, crop, flip, cell centres."""
    found = 0
    for trial in range(40):
        rng = np.random.default_rng(trial)
        pixels = np.zeros((150, 200, 3), np.uint8)
        x, y = int(rng.integers(20, 180)), int(rng.integers(20, 130))
        pixels[y - 3 : y + 4, x - 3 : x + 4] = 255
        transform = MultiView(views=[dict(scale=(0.3, 0.9))], size=84)
        (view,), (record,) = sample(transform, png(pixels), trial)
        image = view.permute(2, 0, 1).float()
        if record.flip:
            image = image.flip(-1)
        cells = torch.nn.functional.avg_pool2d(image.mean(0)[None, None], 12)[0, 0].flatten()
        centers = cell_centers(record.box[None], record.flip[None], 7)[0]
        if cells.max() < 20:
            continue
        found += 1
        nearest = (centers - torch.tensor([x + 0.5, y + 0.5])).norm(dim=1)
        size = (record.box[2:] - record.box[:2]) / 7
        assert nearest[cells.argmax()] <= size.norm() / 2 + 3
    assert found > 20


def test_scaled_decoding_is_bounded_by_the_crop():
    """Small crops of a large photograph keep their detail; for large ones it is decoded small."""
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 256, (75, 100, 3), dtype=np.uint8), np.ones((16, 16, 1)))
    data = jpeg(pixels.astype(np.uint8))
    for scale in ((0.01, 0.02), (0.9, 1.0)):
        transform = MultiView(views=[dict(scale=scale, flip_prob=0.0)], size=64)
        (view,), (record,) = sample(transform, data, 5)
        box = record.box.round().int().tolist()
        exact = crop_and_resize(pixels.astype(np.uint8), box, 64, "bilinear")
        assert (view.float() - exact.float()).abs().mean() < 6
        assert (record.source_size == torch.tensor([1600.0, 1200.0])).all()


def test_the_decoding_is_as_fine_as_the_smallest_crop_needs():
    data = jpeg(np.zeros((800, 1000, 3), np.uint8))
    large, small = dict(scale=(0.9, 1.0)), dict(scale=(0.01, 0.02))
    for views, scale in (([large], 1 / 8), ([large, small], 1.0), ([small, large], 1.0)):
        assert MultiView(views=views, size=64).plan(data, SampleKey(0, 0, 5)).scale == scale


def test_the_record_of_a_scaled_image_is_of_the_whole_pixels_that_were_cut():
    view = View(size=16, flip_prob=0.0)
    image = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)  # an eighth
    record = view.draw(random.Random(0), 1200, 800)._replace(box=(13, 21, 1181, 790))
    ((pixels, cut),) = view.cut(image, record, random.Random(0))
    assert cut.box == (16, 24, 1184, 792)  # the nearest pixels to 1.6, 2.6, 147.6 and 98.75
    assert torch.equal(pixels, crop_and_resize(image, (2, 3, 148, 99), 16, "bilinear"))


def test_crop_and_resize_is_pillows_antialiased_resize():
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for mode, filter_ in [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)]:
        ours = crop_and_resize(pixels, (10, 20, 100, 80), 32, mode)
        theirs = Image.fromarray(pixels).crop((10, 20, 100, 80)).resize((32, 32), filter_)
        assert np.abs(ours.numpy().astype(int) - np.asarray(theirs, int)).max() <= 1


def test_each_seed_epoch_image_and_view_has_random_numbers_of_its_own():
    transform = MultiView(views=["moco_v2", "moco_v2"], size=8)
    file = png(np.zeros((300, 400, 3), np.uint8))
    keys = [SampleKey(*numbers) for numbers in product(range(2), repeat=3)]
    boxes = [record.box for key in keys for record in transform(file, key)[1]]
    assert len({*boxes}) == 16
    assert boxes == [record.box for key in keys for record in transform(file, key)[1]]


def test_views_share_one_flip_where_asked():
    pixels = png(np.zeros((20, 20, 3), np.uint8))
    for shared in (True, False):
        transform = MultiView(views=["amdim", "amdim"], size=8, shared_flip=shared)
        flips = [
            [bool(record.flip) for record in transform(pixels, SampleKey(0, 0, i))[1]]
            for i in range(60)
        ]
        assert all(a == b for a, b in flips) is shared
        assert 15 < sum(a for a, _ in flips) < 45


def test_misspelt_presets_and_options_are_named():
    with pytest.raises(UserError, match="did you mean 'moco_v2'"):
        MultiView(views=["mocov2"])
    with pytest.raises(UserError, match="did you mean 'gray_prob'"):
        MultiView(views=[dict(preset="moco_v2", grey_prob=1.0)])


@pytest.mark.parametrize(
    "options",
    [
        dict(scale=0.4),
        dict(scale=(0.2, 1.5)),
        dict(scale=(0.5, 0.2)),
        dict(ratio=(0, 1)),
        dict(jitter=0.4),
        dict(jitter=(0.4, 0.4, 0.4, 0.9)),
        dict(flip_prob="x"),
        dict(gray_prob=1.2),
        dict(interpolation="lanczos"),
        dict(size=0),
        dict(patch=2.5),
        dict(stride=-1),
    ],
)
def test_values_that_cannot_be_are_named(options):
    (name,) = options
    with pytest.raises(UserError, match=f"{name} of a view in .*transform is"):
        MultiView(views=[dict(preset="moco_v2", **options)])


def test_whole_numbers_of_numpy_are_taken():
    assert MultiView(views=["moco_v2"], size=np.int64(32)).size == 32


def test_a_narrow_image_gives_a_crop_for_any_ratio():
    (record,) = draws(View(ratio=(3.0, 4.0)), 1, 1, 9)
    assert record.box.tolist() == [0, 4, 1, 5]


def test_a_square_crop_has_the_share_of_the_shorter_side():
    boxes = torch.stack([r.box for r in draws(View(square=0.5), 500)])
    assert (boxes[:, 2:] - boxes[:, :2] == round(375 / 2)).all()
    assert boxes[:, 0].min() < 10 and boxes[:, 2].max() > 490


def test_a_schedule_of_sizes_changes_nothing_but_the_size():
    data = jpeg(np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8))
    schedule = MultiView(["moco_v2", dict(preset="byol_2", size=20)], [(2, 48), (0, 16), (5, 64)])
    for epoch, side in ((0, 16), (1, 16), (2, 48), (4, 48), (5, 64), (99, 64)):
        views, records = sample(schedule, data, 7, epoch, 1)
        fixed = MultiView(["moco_v2", dict(preset="byol_2", size=20)], side)
        expected, same_records = sample(fixed, data, 7, epoch, 1)
        assert views[0].shape == (side, side, 3) and views[1].shape == (20, 20, 3)
        assert all(torch.equal(a, b) for a, b in zip(views, expected, strict=True))
        for one, two in zip(records, same_records, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("size", [[(1, 32)], [], [32, 48], "32", [(0, 16), 3], [(0, 8), (1.5, 16)]])
def test_a_schedule_that_is_none_is_named(size):
    with pytest.raises(UserError, match="transform.size is"):
        MultiView(["moco_v2"], size)


@pytest.mark.parametrize("views", [[], "moco_v2", [None]])
def test_views_that_are_none_are_named(views):
    with pytest.raises(UserError, match="transform.views is"):
        MultiView(views)
