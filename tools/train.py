"""Pretrain a backbone: train.py CONFIG [--images DIR] [--work-dir D] [--resume [auto|PATH]] ..."""

import argparse
import sys

from mmengine.config import DictAction

from densessl.engine.hooks import Stopped
from densessl.engine.optim import PRECISIONS
from densessl.engine.pretrain import memory_advice, pretrain
from densessl.errors import UserError


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pretrain a backbone on unlabelled images.")
    parser.add_argument(
        "config", help="a config file, e.g. configs/densecl/densecl_r18_1xb64-coslr-100e_folder.py"
    )
    parser.add_argument("--images", help="a folder of images, instead of the config's data set")
    parser.add_argument("--work-dir", help="where logs and checkpoints go (work_dirs/<config>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="go on from the latest checkpoint in the work dir (auto), or from this one",
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="auto: bf16 where in hardware")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none")
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="override config keys, e.g. train_cfg.max_epochs=20",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        checkpoint = pretrain(
            args.config,
            images=args.images,
            work_dir=args.work_dir,
            resume=args.resume or False,
            precision=args.precision,
            seed=args.seed,
            launcher=args.launcher,
            **args.cfg_options,
        )
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        print(
            f"\nStopped. Checkpoint: {stop.checkpoint}\nGo on with the same command and --resume",
            file=sys.stderr,
        )
        return 128 + stop.signum
    except (RuntimeError, MemoryError, OSError) as error:
        advice = memory_advice(error)
        if advice is None:
            raise
        print(f"\nerror: {advice}", file=sys.stderr)
        return 2
    print(
        f"\nCheckpoint: {checkpoint}\n"
        f"Next: python tools/convert.py {checkpoint} backbone.pth --to mmdet"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
