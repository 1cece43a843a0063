"""How good frozen features are: test.py CHECKPOINT --data DIR [--tasks knn dense ...]."""

import argparse
import json
import sys
from pathlib import Path

from densessl.errors import UserError
from densessl.options import (
    Parser,
    add_architecture,
    add_trust,
    natural,
    output_file,
    positive,
    seed,
    tool,
)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description="Evaluate a frozen backbone: nearest neighbours, linear and dense probes."
    )
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="of densessl, exported, or of one of many other projects; also `random`, or "
        "`supervised` (torchvision's weights)",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="a folder of class folders, VOC, COCO or masks"
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help="knn, linear (whole images), crops (boxes), dense, cells (masks); default: all",
    )
    parser.add_argument(
        "--size",
        type=positive,
        metavar="PIXELS",
        help="default: that of the pretraining's views, or 128",
    )
    parser.add_argument("--k", type=positive, default=20, help="neighbours that vote (20)")
    parser.add_argument(
        "--stages",
        type=natural,
        nargs="+",
        default=[3],
        metavar="N",
        help="whose maps dense and cells get, 0..3 = C2..C5 (3)",
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="at most N samples to learn from; what is judged on stays whole",
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="default: those in the data")
    parser.add_argument("--seed", type=seed, default=0, help="of splits and of random weights")
    parser.add_argument("--which", default="student", help="student (default) or teacher")
    add_architecture(parser)
    parser.add_argument("--name", help="what to call it in a table")
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=64,
        metavar="N",
        help="images at a time (64); fewer take less memory",
    )
    parser.add_argument(
        "--workers", type=natural, default=0, metavar="N", help="decoding processes"
    )
    parser.add_argument("--out", type=output_file, metavar="FILE", help="write the result as JSON")
    add_trust(parser)
    parser.add_argument(
        "--table", nargs="+", metavar="FILE", help="instead: print such files as a Markdown table"
    )
    args = parser.parse_args(argv)
    if not args.table and not (args.checkpoint and args.data):
        parser.error("give a CHECKPOINT and --data DIR, or --table FILE ...")
    if args.table and (args.checkpoint or args.data or args.out):
        parser.error("--table only prints: leave out the checkpoint, --data and --out")
    return args


def read_results(paths: list[str]) -> list[dict]:
    """The content of result files."""
    results = []
    for path in paths:
        try:
            results.append(json.loads(Path(path).read_text()))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read as a result: {error}.", "Pass files of --out."
            ) from error
    return results


@tool
def main(argv: list[str] | None = None) -> int:
    args = vars(parse(argv))
    tables, out = args.pop("table"), args.pop("out")
    from densessl.evaluation import evaluate, table
    from densessl.files import write_json

    if tables:
        print(table(read_results(tables)))
        return 0
    result = evaluate(args.pop("checkpoint"), args.pop("data"), **args)
    tasks = {task: each for task, each in result["data"].items() if task != "name"}
    for each in tasks.values():
        for line in each["broken"]:
            print(f"cannot read {line}", file=sys.stderr)
    who, size = result["backbone"], result["settings"]["size"]
    model = f"{who['name']} ({who['architecture']}) at {size} px"
    print(f"{model} on {result['data']['name']}, {result['seconds']:.0f} s")
    for task, each in tasks.items():
        note = f"; {each['note']}" if each["note"] else ""
        print(f"{task}: learned from {each['train']}, judged on {each['val']}{note}")
    print(f"{'metric':<16}{'percent':>8}{'chance':>8}")
    for metric, value in result["metrics"].items():
        print(f"{metric:<16}{value:>8.2f}{result['chance'][metric]:>8.2f}")
    if out:
        if Path(out).exists():
            print(f"{out} held an earlier result, which this one replaces.")
        write_json(result, Path(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
