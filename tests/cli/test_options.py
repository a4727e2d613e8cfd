"""Flags that several commands share."""

import argparse

import pytest

from m3jax.cli.options import deprecated_alias


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(prog="m3jax")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--sampling", choices=("random", "top"), default="random")
    parser.add_argument("--language", nargs="+", default=[])
    parser.add_argument("--allow-small", action="store_true")
    for old, new in (("--work", "--workdir"), ("--share", "--ratio"), ("--small", "--allow-small")):
        deprecated_alias(parser, old, new)
    deprecated_alias(parser, "--lang", "--language")
    deprecated_alias(parser, "--pick", "--sampling", {"sample": "random"})
    return parser


def test_deprecated_flags_set_the_new_destination_and_warn(parser, capsys):
    old = "--work W --share 0.25 --pick sample --small --lang en fr"
    new = "--workdir W --ratio 0.25 --sampling random --allow-small --language en fr"
    expected = parser.parse_args(new.split())
    assert capsys.readouterr().err == ""
    assert parser.parse_args(old.split()) == expected
    assert capsys.readouterr().err.splitlines() == [
        "m3jax: warning: --work is deprecated, use --workdir",
        "m3jax: warning: --share is deprecated, use --ratio",
        "m3jax: warning: --pick is deprecated, use --sampling",
        "m3jax: warning: --small is deprecated, use --allow-small",
        "m3jax: warning: --lang is deprecated, use --language",
    ]


def test_deprecated_flags_keep_defaults_and_stay_out_of_the_help(parser):
    assert parser.parse_args(["--workdir", "W"]) == argparse.Namespace(
        workdir="W", ratio=0.5, sampling="random", language=[], allow_small=False
    )
    for old in ("--work ", "--share", "--pick", "--lang ", "--small"):
        assert old not in parser.format_help()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "x"], "argument --share: invalid float value: 'x'"),
        (["--pick", "x"], "argument --pick: invalid choice: 'x'"),
        ([], "the following arguments are required: --workdir"),
    ],
)
def test_deprecated_flags_check_their_values(parser, capsys, arguments, message):
    with pytest.raises(SystemExit):
        parser.parse_args(arguments)
    assert message in capsys.readouterr().err
