"""Measure what training costs: benchmark.py data|step|end-to-end|measures CONFIG, or loss."""

import argparse
import sys

import torch

from densessl.benchmark import (
    benchmark_data,
    benchmark_end_to_end,
    benchmark_loss,
    benchmark_measures,
    benchmark_step,
    recipe,
    record,
    table,
)
from densessl.engine.hooks import Stopped
from densessl.engine.optim import PRECISIONS
from densessl.files import write_json
from densessl.options import Parser, add_cfg_options, natural, output_file, positive, tool


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Measure what training costs.")
    what = parser.add_subparsers(dest="what", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=output_file, metavar="F", help="write the result as JSON")
    shared.add_argument("--threads", type=positive, metavar="N", help="CPU threads of torch")
    placed = argparse.ArgumentParser(add_help=False)
    placed.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    traced = argparse.ArgumentParser(add_help=False)
    traced.add_argument(
        "--profile", type=output_file, metavar="F", help="write a trace for Perfetto"
    )
    repeated = argparse.ArgumentParser(add_help=False, parents=[traced])
    repeated.add_argument("--repeats", type=positive, default=10, metavar="N", help="timed rounds")
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument("config", help="a pretraining config")
    configured.add_argument("--images", help="a folder of images or tar shards")
    configured.add_argument("--precision", choices=PRECISIONS)
    add_cfg_options(configured)

    data = what.add_parser(
        "data", parents=[configured, repeated, placed, shared], help="worker and loader"
    )
    data.add_argument("--count", type=positive, default=200, metavar="N", help="images to use")
    data.add_argument("--workers", type=natural, nargs="+", default=[0, 1, 2], metavar="N")
    loss = what.add_parser(
        "loss", parents=[repeated, placed, shared], help="info_nce, all logits at once"
    )
    loss.add_argument(
        "--rows",
        type=positive,
        nargs="+",
        default=[1568],
        metavar="N",
        help="49 an image for DenseCL at 224 px",
    )
    loss.add_argument("--negatives", type=positive, nargs="+", default=[65536], metavar="K")
    loss.add_argument("--dim", type=positive, default=128)
    loss.add_argument("--warmup", type=natural, default=1, metavar="N", help="rounds before")
    step = what.add_parser(
        "step", parents=[configured, repeated, placed, shared], help="a step, its floor"
    )
    step.add_argument("--warmup", type=natural, default=3, metavar="N", help="steps before")
    measures = what.add_parser(
        "measures", parents=[configured, placed, shared], help="what each measure buys"
    )
    measures.add_argument("--count", type=positive, default=64, metavar="N", help="images to use")
    measures.add_argument("--repeats", type=positive, default=5, metavar="N", help="timed rounds")
    whole = what.add_parser(
        "end-to-end", parents=[configured, traced, shared], help="files to steps"
    )
    whole.add_argument("--steps", type=positive, default=50, metavar="N")
    whole.add_argument("--warmup", type=natural, default=10, metavar="N", help="steps before")
    args = parser.parse_args(argv)
    if getattr(args, "device", None) == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but PyTorch finds no GPU here")
    return args


def measure(args: argparse.Namespace, device: torch.device) -> dict:
    """Runs the sub-command."""
    if args.what == "loss":
        shape = (args.rows, args.negatives, args.dim)
        return benchmark_loss(*shape, device, args.repeats, args.warmup, args.profile)
    cfg = recipe(args.config, args.images, args.precision, args.cfg_options)
    if args.what == "data":
        return benchmark_data(cfg, device, args.count, args.workers, args.repeats, args.profile)
    if args.what == "step":
        return benchmark_step(cfg, device, args.repeats, args.warmup, args.profile)
    if args.what == "measures":
        return benchmark_measures(cfg, device, args.count, args.repeats)
    return benchmark_end_to_end(cfg, device, args.steps, args.warmup, args.profile)


@tool
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    device = torch.device(
        getattr(args, "device", None) or ("cuda" if torch.cuda.is_available() else "cpu")
    )
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        result = measure(args, device)
    except Stopped as stop:
        # Its checkpoint lay in a temporary folder.
        print("\nStopped: nothing was measured, nothing is kept.", file=sys.stderr)
        return 128 + stop.signum
    print(table(result))
    if args.out:
        write_json(record(args.what, result, getattr(args, "config", None), device.type), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
