"""Package definition of densessl. Configs and tools go with it, under ``densessl/.mim``."""

import re
import shutil
import zlib
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
NORM_ACT = "densessl/models/backbones/norm_act.c"

CORE = [
    "torch>=2.11,<2.12",
    "torchvision>=0.26,<0.27",
    "onedl-mmengine>=0.10.12,<0.11",
    "timm>=1.0.20,<2",
    "numpy",
    "opencv-python>=4.10",
    "pillow>=10",
    "simplejpeg>=1.8",
    "safetensors>=0.4",
]
TRANSFER = [
    "onedl-mmcv>=2.3.6,<2.4",
    "onedl-mmdetection>=3.5.1,<3.6",
    "onedl-mmsegmentation>=1.4.2,<1.5",
    "pycocotools>=2.0.7",
    "matplotlib>=3.8",
    "scipy>=1.10",
    "jinja2>=3.1",
]
# lightly is there to be compared with, in tests.
DEV = ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.8,<1", "lightly>=1.5,<2"]


class BuildWithConfigs(build_py):
    """Also copies ``configs/`` and ``tools/`` into the package, where mm packages keep them."""

    def run(self):
        super().run()
        for folder in ("configs", "tools"):
            target = Path(self.build_lib) / "densessl" / ".mim" / folder
            shutil.copytree(ROOT / folder, target, dirs_exist_ok=True)


setup(
    name="densessl",
    version=re.search(r'__version__ = "(.+?)"', (ROOT / "densessl/version.py").read_text()).group(
        1
    ),
    description="Dense self-supervised pretraining for detection and segmentation",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # Spelt out, so that an editable install is a path: a finder loses to a checkout of this name.
    package_dir={"": "."},
    packages=find_packages(include=["densessl", "densessl.*"]),
    package_data={"densessl": ["transfer/*.html", "models/backbones/*.c"]},
    # Without OpenMP among its libraries: see norm_act.py. Nothing needs it where it is not built.
    ext_modules=[
        Extension(
            f"densessl.models.backbones._norm_act_{zlib.crc32((ROOT / NORM_ACT).read_bytes()):08x}",
            [NORM_ACT],
            # Called only where a CPU has more than this: AVX512-bf16 or AMX.
            extra_compile_args=[
                "-O3",
                "-fopenmp",
                "-march=skylake-avx512",
                "-mprefer-vector-width=512",
            ],
            optional=True,
        )
    ],
    install_requires=CORE,
    extras_require={"transfer": TRANSFER, "dev": TRANSFER + DEV},
    cmdclass={"build_py": BuildWithConfigs},
)
