"""Pretrain a backbone: train.py CONFIG [--images DIR] [--work-dir D] [--resume [auto|PATH]] ..."""

import argparse
import logging
import os
import shlex
import signal
import sys

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process

from densessl.conversion.architecture import is_mm, natural_target
from densessl.engine.config import load_config
from densessl.engine.hooks import Stopped
from densessl.engine.optim import PRECISIONS
from densessl.engine.pretrain import LAUNCHERS, pretrain
from densessl.options import Parser, add_cfg_options, seed, tool

GO_ON = "Go on with the same command and --resume"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Pretrain a backbone on unlabelled images.")
    parser.add_argument(
        "config", help="a config file, e.g. configs/densecl/densecl_r18_1xb64-coslr-100e_folder.py"
    )
    parser.add_argument(
        "--images", help="a folder of images or tar shards, instead of the config's"
    )
    parser.add_argument("--work-dir", help="where logs and checkpoints go (work_dirs/<config>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="go on from the latest checkpoint in the work dir (auto), or from this one",
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="auto: bf16 where in hardware")
    parser.add_argument("--seed", type=seed)
    parser.add_argument("--launcher", choices=("none", *LAUNCHERS), default="none")
    add_cfg_options(parser)
    return parser.parse_args(argv)


def advice(cfg: Config, checkpoint: str) -> str:
    """What to do with the checkpoint."""
    backbone = cfg.model.backbone
    target = natural_target(backbone)
    if target is None:
        return f"in Python densessl.load_backbone({checkpoint!r}, trust=True)"
    own = " --trust" if is_mm(backbone) and cfg.get("custom_imports") else ""
    return f"python tools/convert.py {shlex.quote(checkpoint)} backbone.pth --to {target}{own}"


@tool
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        cfg = load_config(args.config, args.cfg_options)
        checkpoint = pretrain(
            cfg,
            images=args.images,
            work_dir=args.work_dir,
            resume=args.resume or False,
            precision=args.precision,
            seed=args.seed,
            launcher=args.launcher,
        )
    except Stopped as stop:
        if is_main_process():
            print(f"\nStopped. Checkpoint: {stop.checkpoint}\n{GO_ON}", file=sys.stderr)
        return 128 + stop.signum
    except KeyboardInterrupt:  # before the first step, or twice
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"\nStopped at once: only earlier checkpoints stay.\n{GO_ON}", file=sys.stderr)
        return 128 + signal.SIGINT
    if is_main_process():
        print(f"\nCheckpoint: {checkpoint}\nNext: {advice(cfg, str(checkpoint))}")
    return 0


if __name__ == "__main__":
    code = main()
    if torch.distributed.is_initialized():
        # Code 2 may be of this rank alone: the others wait, and torchrun ends them after it.
        if code != 2:
            torch.distributed.destroy_process_group()
        # gloo's threads may still drop tensors of Python's, which aborts where Python ends first.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
