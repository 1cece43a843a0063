"""Arguments of the tools that are refused before any work is done."""

import argparse
import os

import pytest

from densessl.errors import UserError
from densessl.options import Parser, natural, output_file, positive, seed, tool


def test_a_count_is_a_whole_number_above_0():
    assert positive("12") == 12
    for text in ("0", "-5", "1.5", "ten", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number above 0"):
            positive(text)


def test_a_natural_number_may_be_0():
    assert natural("0") == 0 and natural("7") == 7
    for text in ("-1", "1.5", "ten", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number, 0 or above"):
            natural(text)


def test_a_seed_is_one_that_numpy_takes():
    assert seed("0") == 0 and seed("4294967295") == 2**32 - 1
    with pytest.raises(argparse.ArgumentTypeError, match="4294967296 is too large for a seed"):
        seed("4294967296")


def test_an_output_can_be_written(tmp_path, monkeypatch):
    file = tmp_path / "there.json"
    file.write_text("{}")
    for path in (file, tmp_path / "new.json", tmp_path / "new" / "folder" / "new.json"):
        assert output_file(str(path)) == str(path)
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder; name a file in it"):
        output_file(str(tmp_path))
    with pytest.raises(argparse.ArgumentTypeError, match="is a file, not a folder"):
        output_file(str(file / "below.json"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(argparse.ArgumentTypeError, match="cannot be written to"):
        output_file(str(tmp_path / "new.json"))


def test_an_option_is_taken_by_its_whole_name_and_the_near_one_suggested(capsys):
    parser = Parser()
    parser.add_argument("--images")
    for misspelt in ("--imags", "--image"):
        with pytest.raises(SystemExit):
            parser.parse_args([misspelt, "x"])
        assert f"{misspelt} x (did you mean '--images'?)" in capsys.readouterr().err


def test_options_of_sub_commands_are_suggested_too(capsys):
    parser = Parser()
    parser.add_subparsers(dest="what").add_parser("step").add_argument("--images")
    with pytest.raises(SystemExit):
        parser.parse_args(["step", "--imags", "x"])
    assert "did you mean '--images'" in capsys.readouterr().err


def test_an_option_of_another_sub_command_is_not_suggested_for_itself(capsys):
    parser = Parser()
    subs = parser.add_subparsers(dest="what")
    for name in ("data", "step", "other"):
        sub = subs.add_parser(name)
        if name != "other":
            sub.add_argument("--profile")
    for words in (["--profile", "x"], ["--profile=x"]):
        with pytest.raises(SystemExit):
            parser.parse_args(["other", *words])
        said = capsys.readouterr().err
        assert "(--profile is an option of data, step)" in said and "did you mean" not in said


@pytest.mark.parametrize("rank, waits", [("0", []), ("1", [10])])
def test_a_mistake_of_all_processes_is_said_by_the_first(monkeypatch, capsys, rank, waits):
    """torchrun ends the others while they wait; one that lives on was alone with it."""
    slept = []
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr("time.sleep", slept.append)

    @tool
    def main(argv):
        raise UserError("It is wrong.", "mend it")

    assert main([]) == 2 and slept == waits
    assert capsys.readouterr().err == "\nerror: It is wrong.\nWhat to do: mend it\n"


def within_yapf():
    try:
        raise KeyboardInterrupt
    except BaseException:  # as mmengine does while it formats a config
        raise SyntaxError("check the config")  # noqa: B904


def bare():
    raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", [bare, within_yapf])
def test_ctrl_c_is_one_word(capsys, interrupted):
    @tool
    def main(argv):
        interrupted()

    assert main([]) == 130 and capsys.readouterr().err == "\nStopped.\n"


def test_a_mistake_in_syntax_stays_one():
    @tool
    def main(argv):
        raise SyntaxError("no colon")

    with pytest.raises(SyntaxError):
        main([])
