"""The ``--cfg-options`` of the tools."""

import argparse

from mmengine.config import DictAction


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--cfg-options KEY=VALUE ...``; what cannot be read ends the program with code 2."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=_KeyValues,
        default={},
        metavar="KEY=VALUE",
        help="override config keys, e.g. train_cfg.max_epochs=20; lists are [1,2]",
    )


class _KeyValues(DictAction):
    """mmengine's action, which fails on some values with whatever Python raises then."""

    def __call__(self, parser, namespace, values, option_string=None):
        for pair in values:
            try:
                super().__call__(parser, namespace, [pair], option_string)
            except (AssertionError, RecursionError, ValueError) as error:
                raise argparse.ArgumentError(
                    self,
                    f"cannot read '{pair}': give KEY=VALUE with numbers, words or lists of them; "
                    "what has dict() in it goes into a config of your own",
                ) from error
