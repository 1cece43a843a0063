"""What the tools' command lines share; a value that cannot be used ends them with code 2."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from mmengine.config import DictAction

from densessl.errors import UserError
from densessl.structures import SEEDS
from densessl.suggest import did_you_mean


class Parser(argparse.ArgumentParser):
    """argparse's, which takes options by their whole names only and suggests the near one."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            word = unknown.split()[0].partition("=")[0]
            subs: dict[str, argparse.ArgumentParser] = {}
            for action in self._actions:
                if isinstance(action, argparse._SubParsersAction):
                    subs |= action.choices
            having = [name for name, sub in subs.items() if word in sub._option_string_actions]
            parsers = (self, *subs.values())
            known = {option for parser in parsers for option in parser._option_string_actions}
            if having:
                message += f" ({word} is an option of {', '.join(having)})"
            else:
                message += did_you_mean(word, sorted(known))
        super().error(message)


def tool(main: Callable[..., int]) -> Callable[..., int]:
    """Ends a tool's ``main`` with a message and code 2 where the user can mend what is wrong, and
    with 130 after Ctrl-C."""

    @wraps(main)
    def run(argv: list[str] | None = None) -> int:
        try:
            return main(argv)
        except UserError as error:
            if os.environ.get("LOCAL_RANK", "0") != "0":
                time.sleep(10)  # if it is the first one's too, torchrun ends us
            print(f"\nerror: {error}", file=sys.stderr)
            return 2
        except (KeyboardInterrupt, SyntaxError) as error:
            # mmengine takes a Ctrl-C while it formats a config for a mistake in it.
            if KeyboardInterrupt not in (type(error), type(error.__context__)):
                raise
            print("\nStopped.", file=sys.stderr)
            return 128 + signal.SIGINT

    return run


def positive(text: str) -> int:
    """The type of an argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be a whole number above 0")
    return int(text)


def natural(text: str) -> int:
    """The type of an argument that may also be none of something."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' must be a whole number, 0 or above")
    return int(text)


def seed(text: str) -> int:
    """The type of an argument that seeds random numbers."""
    number = natural(text)
    if number not in SEEDS:
        raise argparse.ArgumentTypeError(f"{text} is too large for a seed, {SEEDS[-1]} is the most")
    return number


def output_file(text: str) -> str:
    """The type of an argument that names a file to write, checked before the work is done."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; name a file in it")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise argparse.ArgumentTypeError(f"{above} is a file, not a folder to write {text} in")
    if not os.access(above, os.W_OK):
        raise argparse.ArgumentTypeError(f"{above} cannot be written to, {text} would be in it")
    return text


def add_architecture(parser: argparse.ArgumentParser) -> None:
    """Adds ``--architecture NAME``; see ``load_frozen``."""
    parser.add_argument(
        "--architecture",
        metavar="NAME",
        help="of random weights: resnet18, 34, 50 (default), 101 or a name of timm's; of a "
        "checkpoint that does not say its own: timm's name",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Adds ``--trust``; see ``load_checkpoint`` and ``read_architecture``."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="read a checkpoint that holds code or a network of your own; its code runs here",
    )


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--cfg-options KEY=VALUE ...``."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=_KeyValues,
        default={},
        metavar="KEY=VALUE",
        help="override config keys, e.g. train_dataloader.batch_size=32; lists are [1,2]",
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
