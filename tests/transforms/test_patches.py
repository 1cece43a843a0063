import numpy as np
import pytest
import torch

from densessl.errors import UserError
from densessl.transforms import MultiView
from tests.transforms.test_views import png, sample

SIZE = dict(size=255, grid=3, patch=64)


def gradient():
    """An image whose red is x and whose green is y."""
    pixels = np.zeros((200, 240, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(240), np.arange(200)[:, None]
    return png(pixels)


def cut(number, **options):
    transform = MultiView(views=[{**SIZE, "scale": (0.4, 0.8), **options}])
    return sample(transform, gradient(), number)


def centers(patches):
    """Where the middle of each patch shows that it comes from."""
    return torch.stack([patch.float().mean((0, 1))[:2] for patch in patches])


@pytest.mark.parametrize("shuffle", [False, True])
def test_each_record_tells_where_its_patch_was(shuffle):
    for number in range(8):
        patches, records = cut(number, shuffle=shuffle)
        assert len(patches) == len(records) == 9
        assert all(p.shape == (64, 64, 3) and p.is_contiguous() for p in patches)
        box = torch.stack([r.box for r in records])
        middle = (box[:, :2] + box[:, 2:]) / 2 - 0.5  # pixel k covers k to k + 1
        assert (centers(patches) - middle).abs().max() < 1.5


def test_rows_go_down_and_columns_the_way_of_the_flip():
    seen = set()
    for number in range(10):
        patches, records = cut(number)
        x, y = centers(patches).view(3, 3, 2).unbind(-1)
        flip = bool(records[0].flip)
        assert (y.diff(dim=0) > 0).all()
        assert ((x.diff(dim=1) < 0) if flip else (x.diff(dim=1) > 0)).all()
        seen.add(flip)
    assert seen == {True, False}


def test_patches_lie_anywhere_in_their_cells_and_never_outside():
    offsets = []
    for number in range(60):
        _, (first, *_) = cut(number, square=1.0, flip_prob=0.0)
        offsets.append(round(first.box[1].item() * 255 / 200))  # the crop is 200 pixels high
    assert min(offsets) == 0 and max(offsets) == 85 - 64


def test_shuffling_is_uniform_and_changes_nothing_else():
    orders = []
    for number in range(40):
        plain, mixed = (cut(number, shuffle=shuffle)[1] for shuffle in (False, True))
        boxes = [tuple(r.box.tolist()) for r in plain]
        order = [boxes.index(tuple(r.box.tolist())) for r in mixed]
        assert sorted(order) == list(range(9))
        orders.append(order[0])
    assert len(set(orders)) >= 8


def test_each_patch_has_a_jitter_of_its_own_and_one_gray_for_all():
    grays = set()
    for number in range(10):
        _, records = cut(number, jitter=(0.4,) * 4, jitter_prob=1.0, gray_prob=0.5)
        assert len({tuple(r.jitter.tolist()) for r in records}) == 9
        assert len({bool(r.gray) for r in records}) == 1
        grays.add(bool(records[0].gray))
    assert grays == {True, False}


def test_overlapping_patches_lie_every_stride_row_by_row():
    options = dict(size=200, grid=1, square=1.0, patch=80, stride=40)
    for number in range(6):
        patches, records = cut(number, **options)
        assert len(patches) == 16 and all(p.shape == (80, 80, 3) for p in patches)
        box = torch.stack([r.box for r in records]).view(4, 4, 4)
        order = box.flip(1) if records[0].flip else box
        y, x = torch.meshgrid(*[torch.arange(4.0) * 40] * 2, indexing="ij")
        corner = order[0, 0, :2]
        expected = torch.stack([x, y], -1) + corner
        assert torch.allclose(order[..., :2], expected, atol=1e-3)
        assert torch.allclose(order[..., 2:], expected + 80, atol=1e-3)
        middle = (box[..., :2] + box[..., 2:]).view(16, 2) / 2 - 0.5
        assert (centers(patches) - middle).abs().max() < 1e-3  # the crop is not resized


def test_a_stride_that_does_not_end_at_the_border_is_refused():
    for wrong in (dict(size=250), dict(size=64), dict(size=256, grid=3)):
        with pytest.raises(UserError, match="Patches of 64 pixels, one every 32"):
            MultiView(views=[dict(patch=64, stride=32, **wrong)])


def test_an_image_and_its_patches_travel_together():
    transform = MultiView(views=["moco_v1", dict(preset="moco_v1", **SIZE)], size=32)
    views, records = sample(transform, gradient())
    assert [len(view) for view in views] == [32] + [64] * 9 and len(records) == 10


def test_a_patch_larger_than_a_cell_is_refused():
    with pytest.raises(UserError, match="3 x 3 cells of 33 pixels, which hold no patch of 64"):
        MultiView(views=[dict(size=100, grid=3)])


@pytest.mark.parametrize("grid, stride", [(3, 0), (1, 32)])
def test_the_blur_is_for_the_patch_not_for_what_it_is_cut_from(grid, stride):
    view = dict(size=256, patch=64, blur_prob=1.0, grid=grid, stride=stride)
    sigmas = [
        record.blur_sigma.item()
        for index in range(40)
        for record in sample(MultiView(views=[view]), gradient(), index)[1]
    ]
    assert 0.1 <= min(sigmas) < max(sigmas) <= 2 * 64 / 224
