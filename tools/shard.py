"""Copy a folder of images into tar shards: shard.py IMAGES OUT [--images-per-shard N]"""

import sys

from densessl.datasets.shards import write_shards
from densessl.options import Parser, positive, tool


@tool
def main(argv: list[str] | None = None) -> int:
    parser = Parser(description="Copy a folder of images into tar shards.")
    parser.add_argument("images", help="a folder of images, searched in depth")
    parser.add_argument("out", help="a folder for the shards")
    parser.add_argument("--images-per-shard", type=positive, default=10_000, metavar="N")
    args = parser.parse_args(argv)
    shards = write_shards(args.images, args.out, args.images_per_shard)
    count = f"{len(shards)} shard{'s' * (len(shards) != 1)}"
    print(f"{count} in {args.out}. To train on them: --images {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
