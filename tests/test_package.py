"""What a user of the package sees: light imports, configs that travel with it."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import densessl
from densessl.engine.config import config_folder

ROOT = Path(__file__).parents[1]
# From the lowest to the highest.
PACKAGES = (
    *("transforms", "datasets", "losses", "correspondence", "models", "conversion", "engine"),
    *("labels", "evaluation", "transfer", "visualization", "benchmark", "demo"),
)


@pytest.mark.slow
def test_the_core_imports_without_the_mm_packages():
    """Pretraining, evaluation and conversion to torchvision need no mmcv, mmdet or mmseg."""
    program = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmcv', 'mmdet', 'mmseg'):
            raise ImportError(f'{name} is blocked')
sys.meta_path.insert(0, Blocked())
import torch
import densessl, densessl.engine, densessl.models, densessl.losses, densessl.correspondence
import densessl.evaluation
densessl.pretrain, densessl.load_backbone
from densessl.transfer import export_checkpoint
from densessl.models import build_backbone
checkpoint = sys.argv[1] + '/backbone.pth'
torch.save(dict(state_dict=build_backbone(dict(type='ResNet', depth=18)).state_dict()), checkpoint)
assert export_checkpoint(checkpoint, sys.argv[1] + '/out.pth', to='torchvision').passed
assert not {'mmcv', 'mmdet', 'mmseg', 'matplotlib', 'jinja2', 'pycocotools'} & set(sys.modules)
"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", program, folder], check=True)


def test_import_is_light_and_names_are_found():
    program = "import densessl, sys; assert 'torch' not in sys.modules; print(densessl.__version__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == densessl.__version__, done.stderr
    assert callable(densessl.pretrain) and callable(densessl.load_backbone)
    with pytest.raises(AttributeError, match="pretrian"):
        _ = densessl.pretrian


def test_packages_import_in_one_direction():
    """Each knows those before it in ``PACKAGES``, and the single modules, which know none."""
    root = ROOT / "densessl"
    assert {folder.parent.name for folder in root.glob("*/__init__.py")} == {*PACKAGES}
    for file in root.glob("**/*.py"):
        own = file.relative_to(root).parts[0]
        if own == "__init__.py":  # what it offers is imported when it is used
            continue
        known = {*PACKAGES[: PACKAGES.index(own) + 1]} if own in PACKAGES else set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            used = {name.split(".")[1] for name in names if name.startswith("densessl.")}
            assert used & {*PACKAGES} <= known, file


@pytest.mark.slow
def test_configs_and_tools_are_in_the_wheel(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
        + ["-w", str(tmp_path), str(ROOT)],
        check=True,
    )
    (wheel,) = tmp_path.glob("densessl-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    for path in config_folder().rglob("*.py"):
        assert f"densessl/.mim/configs/{path.relative_to(config_folder())}" in packed
    assert {"densessl/.mim/tools/train.py", "densessl/transfer/report.html"} <= packed


def test_configs_are_few():
    assert len(list(config_folder().rglob("*.py"))) <= 64
