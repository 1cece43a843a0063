"""The main job in small: demo.py [--data DIR] [--out DIR]. `make demo` calls it."""

import sys

from densessl.demo.run import run_demo
from densessl.engine.hooks import Stopped
from densessl.options import Parser, tool


@tool
def main(argv: list[str] | None = None) -> int:
    parser = Parser(description="Pretrain, convert, fine-tune and report, in small.")
    parser.add_argument("--data", help="a VOC-layout folder; without it scenes are rendered")
    parser.add_argument("--out", default="demo_out", help="where everything is written")
    args = parser.parse_args(argv)
    try:
        run_demo(args.out, args.data)
    except Stopped as stop:
        print("\nStopped; the same command goes on from here.", file=sys.stderr)
        return 128 + stop.signum
    return 0


if __name__ == "__main__":
    sys.exit(main())
