"""Compare initialisations by fine-tuning: transfer.py CONFIG --init NAME=CHECKPOINT ..."""

import argparse
import json
import sys

from densessl.conversion.source import RANDOM, SUPERVISED
from densessl.errors import UserError
from densessl.options import Parser, add_cfg_options, add_trust, positive, seed, tool
from densessl.transfer.finetune import finetune


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description="Fine-tune a detector or segmenter from several starting points, and compare."
    )
    parser.add_argument(
        "config", help="a transfer config, e.g. configs/transfer/detection/faster-rcnn_fpn_small.py"
    )
    parser.add_argument(
        "--init",
        action="append",
        required=True,
        metavar="NAME=CHECKPOINT",
        help="a starting point; also `random`, or `supervised` (torchvision's weights); repeat it",
    )
    parser.add_argument("--data", metavar="DIR", help="the labelled data")
    parser.add_argument(
        "--work-dir", required=True, metavar="DIR", help="where everything is written"
    )
    parser.add_argument("--seeds", nargs="+", type=seed, default=[0], metavar="N")
    parser.add_argument(
        "--label-fraction",
        nargs="+",
        type=float,
        default=[1.0],
        metavar="F",
        help="shares of the labelled images to train on, such as 0.1 1",
    )
    parser.add_argument(
        "--iterations", type=positive, metavar="N", help="of each job; scales the schedule"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="classes to use; for masks also INDEX=NAME (default: those in the data)",
    )
    parser.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="jobs at the same time"
    )
    add_trust(parser)
    add_cfg_options(parser)
    return parser.parse_args(argv)


def read_inits(texts: list[str]) -> dict[str, str]:
    """``NAME=CHECKPOINT``, ``random`` and ``supervised`` as name -> source."""
    inits = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals and name not in (RANDOM, SUPERVISED):
            raise UserError(
                f"--init {text} has no name.",
                "Write --init NAME=CHECKPOINT, --init random or --init supervised.",
            )
        if name in inits:
            raise UserError(f"--init {name} is given twice.", "Use different names.")
        inits[name] = source if equals else name
    return inits


@tool
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        path = finetune(
            args.config,
            read_inits(args.init),
            args.work_dir,
            seeds=args.seeds,
            label_fractions=args.label_fraction,
            data=args.data,
            classes=args.classes,
            iterations=args.iterations,
            cfg_options=args.cfg_options,
            jobs=args.jobs,
            trust=args.trust,
        )
    except SystemExit as stop:  # Ctrl-C or SIGTERM
        return int(stop.code)
    failed = [run for run in json.loads(path.read_text())["runs"] if run["status"] == "failed"]
    for run in failed:
        print(f"failed: {run['init']}, seed {run['seed']}: {run['error']}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
