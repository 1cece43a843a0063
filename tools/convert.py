"""Exports the backbone of a checkpoint to another framework and proves it there."""

import sys
from collections.abc import Sequence

from densessl.options import Parser, add_trust, output_file, tool


@tool
def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if everything matched, 1 on a gap (nothing is written), 2 on a user's mistake."""
    parser = Parser(description=__doc__)
    parser.add_argument("checkpoint", help="of densessl, or of one of many other projects")
    parser.add_argument("output", type=output_file, help="the file to write; never overwritten")
    parser.add_argument("--to", required=True, help="mmdet, mmseg, torchvision, timm or detectron2")
    parser.add_argument("--which", default="student", help="student (default) or teacher")
    parser.add_argument(
        "--architecture",
        metavar="NAME",
        help="timm's name of the network, where another project's file does not say it",
    )
    add_trust(parser)
    args = parser.parse_args(argv)

    from densessl.conversion.export import export_checkpoint

    report = export_checkpoint(
        args.checkpoint, args.output, args.to, args.which, args.trust, args.architecture
    )
    print(report.table())
    print()
    print(report.summary())
    if not report.passed:
        return 1
    print(f"\nUse it in {report.to}:\n{report.usage}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
