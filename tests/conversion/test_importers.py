"""Every layout of other projects, built as they build it, gives back the backbone's tensors."""

import pytest
import timm
import torch
import torchvision
from mmengine.registry import DefaultScope
from safetensors.torch import save_file
from torch import nn

from densessl.checkpoint import load_checkpoint
from densessl.conversion.export import export_checkpoint, verify
from densessl.conversion.importers import depth_in_names
from densessl.conversion.source import find_backbone, load_backbone, load_source
from densessl.errors import UserError
from densessl.models.backbones import build_backbone
from densessl.registry import MODELS

RESNET = {"type": "ResNet", "depth": 18}


@pytest.fixture(scope="module")
def bare() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = torchvision.models.resnet18().state_dict()
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


@pytest.fixture(scope="module")
def other(bare) -> dict[str, torch.Tensor]:
    """Another net of the same kind, to be left alone."""
    return {name: value + 1 for name, value in bare.items()}


def put(prefix: str, state: dict) -> dict:
    return {prefix + name: value for name, value in state.items()}


HEAD = {"fc.0.weight": torch.zeros(4, 512), "fc.0.bias": torch.zeros(4)}
# layout -> (the word it is reported with, which, build(wanted, other))
LAYOUTS = {
    "torchvision": ("bare", "student", lambda s, o: {**s, **HEAD}),
    "bare under state_dict": ("bare", "student", lambda s, o: {"state_dict": s}),
    "DDP": ("bare", "student", lambda s, o: {"model": put("module.", s)}),
    "a compiled part": (
        "mmselfsup",
        "student",
        lambda s, o: {"state_dict": put("backbone._orig_mod.", s)},
    ),
    "a method in DDP": (
        "own state_dict",
        "teacher",
        lambda s, o: {
            "state_dict": put("module.teacher.backbone.", s) | put("module.backbone.", o)
        },
    ),
    "moco": (
        "MoCo:",
        "student",
        lambda s, o: {
            "epoch": 3,
            "arch": "resnet18",
            "state_dict": put("module.encoder_k.", o) | put("module.encoder_q.", {**s, **HEAD}),
        },
    ),
    "moco teacher": (
        "MoCo:",
        "teacher",
        lambda s, o: {"state_dict": put("module.encoder_q.", o) | put("module.encoder_k.", s)},
    ),
    "moco v3": (
        "MoCo v3:",
        "student",
        lambda s, o: {
            "state_dict": put("module.momentum_encoder.", o) | put("module.base_encoder.", s)
        },
    ),
    "moco v3 teacher": (
        "MoCo v3",
        "teacher",
        lambda s, o: {
            "state_dict": put("module.base_encoder.", o) | put("module.momentum_encoder.", s)
        },
    ),
    "barlow twins": (
        "Barlow Twins",
        "student",
        lambda s, o: {"epoch": 1, "model": put("module.backbone.", s)},
    ),
    "densecl": (
        "DenseCL",
        "student",
        lambda s, o: {"state_dict": put("encoder_k.0.", o) | put("encoder_q.0.", s)},
    ),
    "densecl teacher": (
        "DenseCL",
        "teacher",
        lambda s, o: {"state_dict": put("encoder_q.0.", o) | put("encoder_k.0.", s)},
    ),
    "mmselfsup": (
        "mmselfsup",
        "student",
        lambda s, o: {
            "meta": {"epoch": 1},
            "state_dict": put("backbone.", s) | put("encoder_k.module.0.", o),
        },
    ),
    **{
        f"mmselfsup teacher {prefix}": (
            "mmselfsup",
            "teacher",
            lambda s, o, prefix=prefix: {"state_dict": put("backbone.", o) | put(prefix, s)},
        )
        for prefix in (
            "encoder_k.module.0.",
            "target_net.module.0.",
            "momentum_encoder.module.0.",
        )
    },
    "vissl": (
        "VISSL",
        "student",
        lambda s, o: {
            "classy_state_dict": {
                "base_model": {"model": {"trunk": put("_feature_blocks.", s), "heads": {}}}
            }
        },
    ),
    "solo-learn": ("solo-learn", "student", lambda s, o: {"state_dict": put("backbone.", s)}),
    "solo-learn old": ("solo-learn", "student", lambda s, o: {"state_dict": put("encoder.", s)}),
    "solo-learn teacher": (
        "solo-learn",
        "teacher",
        lambda s, o: {"state_dict": put("backbone.", o) | put("momentum_backbone.", s)},
    ),
    "pixpro": (
        "PixPro",
        "student",
        lambda s, o: {"model": put("module.encoder_k.", o) | put("module.encoder.", s)},
    ),
    "dino": (
        "DINO",
        "student",
        lambda s, o: {"student": put("module.backbone.", s), "teacher": put("backbone.", o)},
    ),
    "dino teacher": (
        "DINO",
        "teacher",
        lambda s, o: {"student": put("module.backbone.", o), "teacher": put("backbone.", s)},
    ),
}


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_the_depth_in_the_names(depth):
    assert depth_in_names(build_backbone(dict(type="ResNet", depth=depth)).state_dict()) == depth


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_gives_the_right_tensors(name, bare, other):
    word, which, build = LAYOUTS[name]
    found = find_backbone(build(bare, other), which, "file.pth")
    assert word in found.layout
    assert found.architecture == RESNET
    assert found.coverage.complete, found.coverage.table()
    assert found.state.keys() == bare.keys()
    assert all(torch.equal(found.state[key], bare[key]) for key in bare)


@pytest.mark.parametrize(
    ("which", "prefix"),
    [("student", "backbone."), ("teacher", "backbone_momentum."), ("student", "")],
)
def test_lightly_sequential(which, prefix):
    resnet = torchvision.models.resnet18()
    sequential = nn.Sequential(*list(resnet.children())[:-1])
    content = {"state_dict": put(prefix, sequential.state_dict())}
    found = find_backbone(content, which, "file.ckpt")
    assert found.layout.startswith("lightly") and found.coverage.complete
    reference = resnet.state_dict()
    assert all(torch.equal(value, reference[key]) for key, value in found.state.items())


def test_dropped_heads_are_named(bare):
    notes = " ".join(find_backbone({**bare, **HEAD}, "student", "f").notes)
    assert "fc.0.weight" in notes and "fc.0.bias" in notes


def test_old_files_without_batch_counters(bare):
    old = {key: value for key, value in bare.items() if "num_batches" not in key}
    found = find_backbone(old, "student", "f")
    assert found.coverage.complete and found.state.keys() == bare.keys()
    assert "layer4.1.bn2.num_batches_tracked" in " ".join(found.notes)


def test_half_precision_becomes_float32(bare):
    half = {k: v.half() if v.is_floating_point() else v for k, v in bare.items()}
    found = find_backbone(half, "student", "f")
    assert found.state["conv1.weight"].dtype == torch.float32
    assert found.state["bn1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.slow
def test_moco_v3_vit_small_has_twelve_heads():
    model = timm.create_model("vit_small_patch16_224", num_heads=12, num_classes=0)
    head = {"head.0.weight": torch.zeros(4, 384)}
    content = {"state_dict": put("module.base_encoder.", model.state_dict() | head)}
    found = find_backbone(content, "student", "f")
    assert found.architecture == {
        "type": "TimmBackbone",
        "name": "vit_small_patch16_224",
        "num_heads": 12,
    }
    assert found.coverage.complete and "12 heads" in " ".join(found.notes)
    assert found.build().model.blocks[0].attn.num_heads == 12


@pytest.mark.slow
def test_dino_vit_with_another_size():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32)
    content = {"teacher": put("backbone.", model.state_dict())}
    found = find_backbone(content, "teacher", "f")
    assert found.architecture["name"] == "vit_tiny_patch16_224"
    assert found.architecture["img_size"] == 32 and found.coverage.complete
    with pytest.raises(UserError, match="holds the teacher"):
        find_backbone(content, "student", "f")


def test_timm_checkpoint_that_names_its_model():
    model = timm.create_model("convnext_atto")
    content = {"arch": "convnext_atto", "state_dict": model.state_dict()}
    found = find_backbone(content, "student", "f")
    assert found.coverage.complete, found.coverage.table()
    assert "head.norm.weight" in found.state  # ConvNeXt keeps its last norm there
    assert "head.fc.weight" in " ".join(found.notes)


@pytest.mark.parametrize("name", ["convnext_atto", "efficientnet_lite0"])
def test_a_safetensors_file_of_timms_whose_network_the_user_names(tmp_path, name):
    model = timm.create_model(name)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    if name == "convnext_atto":
        with pytest.raises(UserError, match="no architecture") as error:
            load_source(tmp_path / "model.safetensors")
        assert "--architecture" in error.value.remedy
    found = load_source(tmp_path / "model.safetensors", architecture=name)
    assert torch.equal(
        found.state["conv_stem.weight" if "eff" in name else "stem.0.weight"],
        next(model.parameters()),
    )
    report = export_checkpoint(
        tmp_path / "model.safetensors", tmp_path / "out.pth", "timm", architecture=name
    )
    assert report.passed
    assert verify(tmp_path / "out.pth", tmp_path / "model.safetensors").passed
    with pytest.raises(UserError, match=f"timm has no model '{name}x'"):
        load_source(tmp_path / "model.safetensors", architecture=f"{name}x")


def test_the_users_name_of_a_vision_transformer_wins():
    state = timm.create_model("vit_base_patch16_clip_224").state_dict()
    found = find_backbone(state, "student", "f", "vit_base_patch16_clip_224")
    assert found.coverage.complete and found.architecture["name"] == "vit_base_patch16_clip_224"
    assert find_backbone(state, "student", "f").architecture["name"] == "vit_base_patch16_224"


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_the_state_of_a_method_in_a_loop_of_ones_own(tmp_path, which):
    backbone = dict(type="TimmBackbone", name="convnext_atto")
    head = dict(type="GlobalHead", out_channels=8)
    with DefaultScope.overwrite_default_scope("densessl"):
        method = MODELS.build(dict(type="BYOL", backbone=backbone, head=head, predictor=head))
    trained = method if which == "student" else method.teacher
    torch.nn.init.normal_(next(trained.backbone.parameters()))
    torch.save(dict(state_dict=method.state_dict()), tmp_path / "own.pth")
    loaded = load_backbone(tmp_path / "own.pth", which, architecture="convnext_atto")
    assert torch.equal(next(loaded.parameters()), next(trained.backbone.parameters()))
    with pytest.raises(UserError, match="no architecture"):
        load_backbone(tmp_path / "own.pth", which)


def test_a_damaged_safetensors_file_is_named(tmp_path):
    save_file({"stem.0.weight": torch.zeros(9)}, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-8])
    with pytest.raises(UserError, match="damaged or was cut short"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_a_network_of_timms_with_the_names_of_a_resnet_is_not_taken_for_one():
    state = timm.create_model("resnetaa50").state_dict()
    for name, kind in (
        ("resnetaa50", "TimmBackbone"),
        ("resnet50", "ResNet"),
        ("tv_resnet50", "ResNet"),
        (None, "ResNet"),
    ):
        found = find_backbone({"arch": name, "state_dict": state}, "student", "f")
        assert found.architecture["type"] == kind


def test_a_named_network_is_no_reason_to_take_a_teacher_for_a_student(bare):
    content = {"arch": "resnet18", "state_dict": put("module.encoder_k.", bare)}
    with pytest.raises(UserError, match="holds no student; it holds the teacher"):
        find_backbone(content, "student", "f")
    assert find_backbone(content, "teacher", "f").coverage.complete


def test_teacher_that_is_not_there(bare):
    with pytest.raises(UserError, match="no teacher; it holds the student(.*\n).*convert it first"):
        find_backbone({"state_dict": put("module.encoder_q.", bare)}, "teacher", "f")


def test_deep_stem_is_a_gap(bare):
    """ResNetV1c keeps layer1..4 and has another stem."""
    state = {k: v for k, v in bare.items() if not k.startswith(("conv1", "bn1"))}
    state["stem.0.weight"] = torch.zeros(32, 3, 3, 3)
    coverage = find_backbone({"state_dict": state}, "student", "f").coverage
    assert not coverage.complete
    assert "conv1.weight" in coverage.missing and coverage.unexpected == ("stem.0.weight",)


def test_unknown_files_are_refused():
    for content in ({"a": 1}, {"state_dict": {"w.x": torch.zeros(1)}}, {"model": {}}):
        with pytest.raises(UserError, match="densessl knows"):
            find_backbone(content, "student", "f")
    wide = {"layer1.0.conv1.weight": torch.zeros(1), "conv1.weight": torch.zeros(1)}
    with pytest.raises(UserError, match="no architecture"):
        find_backbone(wide, "student", "f")
    with pytest.raises(UserError, match="format 'densessl/9'"):
        find_backbone({"meta": {"format": "densessl/9"}}, "student", "f")


def test_diverged_weights_are_refused(bare):
    with pytest.raises(UserError, match="NaN or infinity"):
        find_backbone({**bare, "conv1.weight": bare["conv1.weight"] / 0}, "student", "f")
