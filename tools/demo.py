"""The main job in small: demo.py [--data DIR] [--out DIR]. `make demo` calls it."""

import argparse
import sys

from densessl.demo.run import run_demo
from densessl.engine.hooks import Stopped
from densessl.errors import UserError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Pretrain, convert, fine-tune and report, in small."
    )
    parser.add_argument("--data", help="a VOC-layout folder; without it scenes are rendered")
    parser.add_argument("--out", default="demo_out", help="where everything is written")
    args = parser.parse_args(argv)
    try:
        run_demo(args.out, args.data)
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        print("\nStopped; the same command goes on from here.", file=sys.stderr)
        return 128 + stop.signum
    return 0


if __name__ == "__main__":
    sys.exit(main())
