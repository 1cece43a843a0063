"""Draw what a method sees: visualize.py views CONFIG | correspondence CHECKPOINT | features ..."""

import argparse
import sys
from pathlib import Path

from densessl.errors import UserError
from densessl.files import open_atomically
from densessl.options import (
    Parser,
    add_architecture,
    add_cfg_options,
    add_trust,
    natural,
    output_file,
    positive,
    seed,
    tool,
)


def picture(text: str) -> str:
    """The type of an argument that names a picture to write."""
    if Path(text).suffix.lower() not in (".png", ".jpg", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"{text} must end in .png, .jpg, .pdf or .svg")
    return output_file(text)


def named(text: str) -> tuple[str, str]:
    """The type of ``NAME=CHECKPOINT``; the file's own name stands for a missing NAME."""
    name, equals, source = text.partition("=")
    whole = not equals or Path(text).is_file()  # a path may have a = in it
    return (Path(text).stem, text) if whole else (name, source)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Draw views, matched cells or features.")
    what = parser.add_subparsers(dest="what", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=picture, required=True, metavar="F", help="png, pdf or svg")
    shared.add_argument("--seed", type=seed, default=0, help="of crops and of random weights")
    trained = argparse.ArgumentParser(add_help=False)
    trained.add_argument("--images", required=True, metavar="DIR", help="a folder of images")
    trained.add_argument("--size", type=positive, default=224, metavar="PIXELS", help="(224)")
    trained.add_argument("--stage", type=natural, default=3, help="whose map, 0..3 = C2..C5 (3)")
    trained.add_argument("--which", default="student", help="student (default) or teacher")
    add_architecture(trained)
    add_trust(trained)

    views = what.add_parser("views", parents=[shared], help="crops and augmented views of a config")
    views.add_argument("config")
    views.add_argument("--images", metavar="DIR", help="instead of the config's")
    views.add_argument("--count", type=positive, default=4, metavar="N", help="images (4)")
    views.add_argument("--epoch", type=natural, default=0, help="counted from 0")
    add_cfg_options(views)
    cells = what.add_parser(
        "correspondence", parents=[shared, trained], help="which cells of two crops it matches"
    )
    cells.add_argument("source", metavar="checkpoint", help="what tools/test.py takes, or `random`")
    cells.add_argument("--count", type=positive, default=3, metavar="N", help="images (3)")
    maps = what.add_parser(
        "features", parents=[shared, trained], help="three main components of the cells as colours"
    )
    maps.add_argument(
        "sources", nargs="+", type=named, metavar="[NAME=]checkpoint", help="or `random`"
    )
    maps.add_argument("--count", type=positive, default=4, metavar="N", help="images (4)")
    return parser.parse_args(argv)


@tool
def main(argv: list[str] | None = None) -> int:
    args = vars(parse(argv))
    what, out = args.pop("what"), Path(args.pop("out"))
    try:
        from densessl import visualization
    except ImportError as error:
        raise UserError(f"Pictures need matplotlib: {error}.", "pip install matplotlib") from error
    if what == "features":
        names = [name for name, _ in args["sources"]]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(
                f"Several backbones are called '{twice}'.", "Write NAME=CHECKPOINT for each."
            )
        args["sources"] = dict(args["sources"])
    figure = getattr(visualization, f"show_{what}")(**args)
    with open_atomically(out) as file:
        figure.savefig(file, dpi=150, format=out.suffix[1:])
    print(f"Picture: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
