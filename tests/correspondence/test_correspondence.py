import pytest
import torch

from densessl.correspondence import (
    cell_centers,
    cell_diagonals,
    match_agreement,
    match_by_distance,
    match_by_feature,
    match_chance,
    near_cells,
)
from densessl.correspondence.feature import gather_cells, pool_to_grid


def test_cell_centres_of_a_whole_224_view():
    centers = cell_centers(torch.tensor([[0.0, 0, 224, 224]]), torch.tensor([False]), 7)
    assert centers.shape == (1, 49, 2)
    assert centers[0, :7, 0].tolist() == [16, 48, 80, 112, 144, 176, 208]
    assert centers[0, ::7, 1].tolist() == [16, 48, 80, 112, 144, 176, 208]


def test_flip_reverses_the_cells_along_x_only_and_twice_is_identity():
    box = torch.tensor([[10.0, 20, 80, 48]])
    plain, flipped = (cell_centers(box, torch.tensor([f]), 4).view(4, 4, 2) for f in (False, True))
    assert torch.allclose(flipped, plain.flip(1))
    assert torch.allclose(flipped.flip(1), plain)


def test_a_crop_of_a_crop_composes():
    """Cells of the right half of a crop are the right half of its cells."""
    box, half = torch.tensor([[10.0, 0, 90, 80]]), torch.tensor([[50.0, 0, 90, 80]])
    no = torch.tensor([False])
    outer = cell_centers(box, no, 8).view(8, 8, 2)
    inner = cell_centers(half, no, 8).view(8, 8, 2)
    assert torch.allclose(outer[:, 4:, 0].unique(), inner[0, :, 0].view(4, 2).mean(1))


@pytest.mark.parametrize("query_side,key_side", [((7, 7), (7, 7)), ((3, 5), (4, 2))])
def test_match_is_the_highest_cosine(query_side, key_side):
    torch.manual_seed(0)
    query = torch.randn(2, 6, *query_side, dtype=torch.float64)
    key = torch.randn(2, 6, *key_side, dtype=torch.float64) * 10
    match = match_by_feature(query, key)
    assert match.shape == (2, query_side[0] * query_side[1])
    for b in range(2):
        for i, column in enumerate(query[b].flatten(1).T):
            keys = key[b].flatten(1).T
            cosine = (keys @ column) / (keys.norm(dim=1) * column.norm())
            assert match[b, i] == cosine.argmax()


def test_match_is_not_made_in_bf16():
    torch.manual_seed(0)
    query, key = torch.randn(4, 32, 7, 7), torch.randn(4, 32, 7, 7)
    plain = match_by_feature(query, key)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(match_by_feature(query, key), plain)


def test_match_of_a_shifted_map_is_the_shift():
    cells = torch.eye(16).view(1, 16, 4, 4)
    match = match_by_feature(cells, cells.roll(1, dims=3)).view(4, 4)
    assert torch.equal(match, torch.arange(16).view(4, 4).roll(-1, dims=1))
    assert torch.equal(gather_cells(cells.roll(1, dims=3), match.view(1, 16)), cells.flatten(2))


def test_agreement_is_exact_far_from_the_corner_of_a_large_image():
    """A matrix product's distances are off by pixels here, and a small crop's cells are few."""
    box = torch.tensor([[30000.0, 20000.0, 30060.0, 20060.0]])
    centers = cell_centers(box, torch.tensor([False]), 7)
    beside = torch.arange(49).view(7, 7).roll(1, 1)[:, 1:]  # one cell away
    query = centers[:, torch.arange(49).view(7, 7)[:, 1:].flatten()]
    near = near_cells(query, centers)
    assert match_agreement(beside.reshape(1, -1), near) == 1
    assert match_agreement(torch.zeros(1, 42, dtype=torch.long), near) <= 2 / 42


def test_agreement_is_one_for_the_geometric_match_and_low_for_a_wrong_one():
    box = torch.tensor([[0.0, 0, 70, 70]])
    shifted = torch.tensor([[10.0, 0, 80, 70]])
    flip = torch.tensor([True])
    query = cell_centers(box, ~flip, 7)
    key = cell_centers(shifted, flip, 7)
    right = torch.cdist(query, key).argmin(2)
    near = near_cells(query, key)
    assert match_agreement(right, near) == 1
    assert match_agreement(right.flip(1), near) < 0.3
    far = near_cells(query, cell_centers(shifted + 1000, flip, 7))
    assert match_agreement(right, far) == match_chance(far) == 0
    every = [match_agreement(torch.full((1, 49), cell), near) for cell in range(49)]
    assert match_chance(near).item() == pytest.approx(sum(every).item() / 49)


def test_distance_pairs_are_those_nearer_than_the_threshold():
    torch.manual_seed(0)
    corner = torch.rand(2, 6, 2) * 60
    boxes = [torch.cat([c, c + 40 + torch.rand(6, 2) * 40], 1) for c in corner]
    flips = [torch.rand(6) < 0.5 for _ in range(2)]
    grids = (5, 3)
    centers = [cell_centers(*part) for part in zip(boxes, flips, grids, strict=True)]
    diagonals = [cell_diagonals(*part) for part in zip(boxes, grids, strict=True)]
    pairs = match_by_distance(*centers, *diagonals, threshold=0.6)
    assert pairs.shape == (6, 25, 9) and 0 < pairs.sum() < pairs.numel() / 4
    for b in range(6):
        sides = [(box[b, 2:] - box[b, :2]) / grid for box, grid in zip(boxes, grids, strict=True)]
        reach = 0.6 * max(side.square().sum().sqrt() for side in sides)
        for i, one in enumerate(centers[0][b]):
            for j, two in enumerate(centers[1][b]):
                assert pairs[b, i, j] == ((one - two).square().sum().sqrt() < reach)


def test_distances_stay_exact_far_from_the_origin():
    """A product form of the distance would be wrong by pixels here."""
    box = torch.tensor([[9000.0, 9000, 9007, 9007]])
    centers = cell_centers(box, torch.tensor([False]), 7)
    diagonal = cell_diagonals(box, 7)
    pairs = match_by_distance(centers, centers, diagonal, diagonal)
    assert torch.equal(pairs[0], torch.eye(49, dtype=torch.bool))


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (12, 10), (3, 7), (14, 7)])
def test_pooling_to_a_grid_is_adaptive_average_pooling(height, width):
    maps = torch.randn(2, 3, height, width, dtype=torch.double, requires_grad=True)
    weight = torch.randn(2, 3, 5, 5, dtype=torch.double)
    pools = pool_to_grid(maps, 5), torch.nn.functional.adaptive_avg_pool2d(maps, 5)
    torch.testing.assert_close(*pools)
    torch.testing.assert_close(*(torch.autograd.grad((p * weight).sum(), maps) for p in pools))
    assert pool_to_grid(maps.bfloat16(), 5).dtype == torch.bfloat16
