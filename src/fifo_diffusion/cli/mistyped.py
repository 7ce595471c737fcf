"""A mistyped command line: one sentence, as every error is, instead of typer's box.

typer names its mistakes by classes that it has from click, or in newer versions from a copy of click inside itself.
Only `BadParameter` is public in both, so the others are told apart by the name of their class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, cast

from typer import BadParameter, Context
from typer.core import TyperGroup

from fifo_diffusion.errors import BadInput

_UsageError = cast("type[Exception]", BadParameter.__base__)
_NUMBERS = {"int_parsing": "give a whole number", "float_parsing": "give a number"}  # by pydantic's name of the mistake


class Group(TyperGroup):
    """Commands; what was mistyped after the group's name or after theirs is BadInput."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _in_one_sentence(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _in_one_sentence(ctx):
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            near = _nearest(get_close_matches(args[0], self.commands))
            raise BadInput(
                f"{ctx.command_path} has no command {args[0]!r}{near}; the commands are {', '.join(self.commands)}; "
                f"see {ctx.command_path} -h"
            )
        return super().resolve_command(ctx, args)


@contextmanager
def _in_one_sentence(ctx: Context) -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        kind = type(error).__name__
        if kind == "NoArgsIsHelpError":  # the help was printed, and is all there is to say
            raise
        at = getattr(error, "ctx", None)  # None where a flag lacks its value
        path = f"{ctx.command_path} {ctx.invoked_subcommand or ''}".rstrip() if at is None else at.command_path
        raise BadInput(f"{_SENTENCES.get(kind, _other)(error, path)}; see {path} -h") from None


def _no_such_flag(error: Any, path: str) -> str:
    return f"{path} has no flag {error.option_name!r}{_nearest(error.possibilities)}"


def _nearest(near: Sequence[str] | None) -> str:
    return f", the nearest is {near[0]}" if near else ""


def _missing(error: Any, path: str) -> str:
    """Named as in the help, with what the help says of it."""
    says = error.param.help.rstrip(".")
    return f"{path} needs {_name(error.param)}: {says[0].lower()}{says[1:]}"


def _wrong_value(error: Any, path: str) -> str:
    from pydantic import ValidationError

    if not isinstance(error.__cause__, ValidationError):  # of click, whose words say what was given
        return f"{_name(error.param)} is not allowed: {_words(error)}"
    wrong = error.__cause__.errors()[0]
    return f"{_name(error.param)} is {wrong['input']!r}; {_NUMBERS.get(wrong['type'], _words(error))}"


def _without_its_value(error: Any, path: str) -> str:
    """Or with one that it does not take."""
    more = "takes no value" if "does not take" in error.message else "needs a value, and none follows it"
    return f"{error.option_name} {more}"


def _other(error: Any, path: str) -> str:
    """Too many arguments, mostly a prompt without quotes; or what typer says."""
    extra = re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", error.message, re.DOTALL)
    if extra is None:
        return f"{path} was not understood: {_words(error)}"
    return f"{path} has no place for {extra[1]!r}; put what has spaces in it into quotes"


def _words(error: Any) -> str:
    """typer's, for the middle of a sentence."""
    says: str = error.message.rstrip(".")
    return says[:1].lower() + says[1:]


def _name(param: Any) -> str:
    flag = param.param_type_name == "option"
    return str(param.opts[0] if flag else param.metavar or param.name.upper())


_SENTENCES = {
    "NoSuchOption": _no_such_flag,
    "MissingParameter": _missing,
    "BadParameter": _wrong_value,
    "BadOptionUsage": _without_its_value,
}
