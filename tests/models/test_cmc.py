"""CMC against a plain float64 transcription of its definition."""

import pytest
import torch
from torch import nn

from densessl.errors import UserError
from densessl.models import CMC
from densessl.models.backbones import SplitBackbone, SplitResNet, build_backbone
from densessl.models.draws import draw
from tests.models.checks import assert_golden, assert_one_step, assert_same
from tests.models.test_instdisc import assert_bank_moved, one_view, unit
from tests.models.tiny import TinyBackbone, build, views

TAU, IMAGES, DRAWN = 0.07, 30, 12
HEAD = dict(type="GlobalHead", hidden_channels=(), out_channels=10)


def split(norm=True):
    """Two tiny networks for one and two channels."""
    parts = [TinyBackbone(norm) for _ in range(2)]
    for part, channels in zip(parts, (1, 2), strict=True):
        part.layers[0] = nn.Conv2d(channels, 8, 3, stride=2, padding=1, bias=not norm)
    return SplitBackbone(parts, (1, 2))


def cmc(backbone=None, **options):
    torch.manual_seed(0)
    options = {**dict(num_samples=IMAGES, num_negatives=DRAWN), **options}
    return build(CMC, HEAD, backbone=backbone or split(), **options)


def one_direction(features, bank, index, drawn):
    """NCE of each feature against the other channel's bank, with the Z of this batch."""
    f = [unit(x) for x in features]
    e = [[torch.exp(v @ x / TAU) for v in bank] for x in f]
    z = IMAGES * torch.stack([e[i][j] for i in range(len(f)) for j in drawn[i]]).mean().detach()
    total = 0
    for i, place in enumerate(index):

        def h(j, i=i):
            return e[i][j] / z / (e[i][j] / z + DRAWN / IMAGES)

        total = total - torch.log(h(place)) - sum(torch.log(1 - h(j)) for j in drawn[i])
    return total / len(f)


def test_loss_and_gradient_equal_the_definition():
    method, batch = cmc(), one_view()
    view, (of_l, of_ab) = batch.views[0], method.backbone.parts
    features_l = method.head_l(of_l(view[:, :1])[0])
    features_ab = method.head_ab(of_ab(view[:, 1:])[0])
    drawn = draw(IMAGES, DRAWN, 0, batch.index)
    expected = one_direction(features_l, method.bank_ab.features, batch.index, drawn)
    expected = expected + one_direction(features_ab, method.bank_l.features, batch.index, drawn)
    assert_same(method, batch, expected)
    assert method.contrast_l.log_z != method.contrast_ab.log_z


def test_one_step_changes_what_it_should_and_nothing_else():
    method, batch = cmc(), one_view()
    with torch.no_grad():
        maps = [part[-1] for part in method.backbone.separate(batch.views[0])]
        seen = dict(bank_l=method.head_l(maps[0]), bank_ab=method.head_ab(maps[1]))
    before = {bank: getattr(method, bank).features.clone() for bank in seen}
    changed = assert_one_step(method, batch)
    assert changed.keys() == dict(method.named_buffers()).keys()
    for bank, f in seen.items():
        assert_bank_moved(before[bank], getattr(method, bank).features, batch.index, f)


def test_views_are_lab_unless_said():
    assert CMC(split(), HEAD, num_samples=4).data_preprocessor.channel_order == "Lab"


def test_the_backbone_is_both_networks_concatenated():
    backbone = split()
    view = torch.randn(2, 3, 16, 16)
    both = torch.cat([backbone.parts[0](view[:, :1])[0], backbone.parts[1](view[:, 1:])[0]], 1)
    assert torch.equal(backbone(view)[0], both) and backbone.out_channels == (24,)


def test_half_width_networks_have_half_the_channels():
    backbone = build_backbone(dict(type="SplitResNet", depth=50, out_indices=(0, 1, 2, 3))).eval()
    assert backbone.out_channels == (256, 512, 1024, 2048)
    for part, channels in zip(backbone.parts, (1, 2), strict=True):
        maps = part(torch.randn(1, channels, 32, 32))
        assert [m.shape[1] for m in maps] == list(part.out_channels) == [128, 256, 512, 1024]
        assert part.conv1.weight.shape == (32, channels, 7, 7)
        assert part.layer4[0].conv2.weight.shape == (256, 256, 3, 3)


def test_odd_channel_counts_are_refused_by_the_name_of_the_key():
    for channels in ((1, 1), (0, 3), (2, 2), (1.5, 1.5), 3, "12"):
        with pytest.raises(UserError, match="model.backbone.channels"):
            SplitResNet(18, channels=channels)
    for width in (0.33, 0, "half"):
        with pytest.raises(UserError, match=f"model.backbone.width is {width!r}"):
            SplitResNet(18, width=width)
    with pytest.raises(UserError, match="model.backbone is TinyBackbone"):
        cmc(TinyBackbone())
    for channels in ((2, 1), (1, 1, 1)):
        with pytest.raises(
            UserError, match=f"model.backbone is for channels .{str(channels)[1:-1]}"
        ):
            cmc(SplitResNet(18, width=0.25, channels=channels))
    with pytest.raises(UserError, match="transform.views makes 2"):
        cmc().loss(views())


def test_twenty_steps_repeat_the_golden_losses():
    assert_golden("cmc", cmc(), lr=0.05, batches=lambda step: one_view(seed=step))
