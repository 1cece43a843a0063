"""The same work in mmpretrain and lightly, turn by turn with ours: benchmark_peers.py data|step.

Needs both beside densessl: ``pip install --no-build-isolation onedl-mmpretrain lightly``.
"""

import argparse
import sys

import torch

from densessl.benchmark import record, table
from densessl.benchmark.peers import RECIPE, compare_data, compare_step
from densessl.engine.optim import PRECISIONS
from densessl.environment import package_versions
from densessl.files import write_json
from densessl.options import Parser, add_cfg_options, output_file, positive, tool

INSTALL = "pip install --no-build-isolation onedl-mmpretrain lightly"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Time the same work in mmpretrain and lightly.")
    what = parser.add_subparsers(dest="what", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--rounds", type=positive, default=5, metavar="N", help="turns that count")
    shared.add_argument("--out", type=output_file, metavar="F", help="write the result as JSON")
    data = what.add_parser("data", parents=[shared], help="files to views, on a CPU")
    data.add_argument("--images", required=True, help="a folder of JPEGs")
    step = what.add_parser("step", parents=[shared], help="a DenseCL step of ResNet-50")
    step.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    step.add_argument("--precision", choices=PRECISIONS, help="ours; theirs follows the device")
    add_cfg_options(step)
    return parser.parse_args(argv)


@tool
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    device = "cpu"
    try:
        if args.what == "data":
            result = compare_data(args.images, args.rounds)
        else:
            device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
            result = compare_step(device, args.rounds, args.precision, args.cfg_options)
    except ImportError as error:
        print(f"\nerror: {error}.\nWhat to do: {INSTALL}", file=sys.stderr)
        return 2
    result["versions"] = package_versions(("onedl-mmpretrain", "lightly"))
    print(table(result))
    if args.out:
        write_json(record(f"peers-{args.what}", result, RECIPE, device), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
