"""Parser: argparse with one-line complaints and suggestions.

A reader turns the text of one flag into a value or raises the error of `minisparse.errors` that fits.
It runs in an argparse action and not as `type=`, because argparse replaces every ValueError of a type
by a text of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from minisparse.errors import UsageError, suggestion

Reader = Callable[[str], Any]


class Parser(argparse.ArgumentParser):
    """One verb's parser. `tokens` is what was typed after the verb, for verbs whose flags depend on it."""

    def __init__(self, verb: str, description: str, tokens: Sequence[str]) -> None:
        super().__init__(
            prog=f"minisparse {verb}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.tokens = list(tokens)

    def value(self, *flags: str, read: Reader, group: Any = None, **options: Any) -> None:
        """A flag (or positional) whose text goes through `read`; group: the argument group it is shown in."""
        (self if group is None else group).add_argument(*flags, action=_Read, read=read, **options)

    def has(self, flag: str) -> bool:
        """Whether the flag is taken."""
        return flag in self._option_string_actions

    def parse(self) -> argparse.Namespace:
        """The namespace of `tokens`; UsageError for anything that does not belong there."""
        self._check_flags()
        args, extra = self.parse_known_args(self.tokens)
        if extra:
            raise UsageError(f"{self.prog}: got {extra[0]!r}, expected nothing more. See: {self.prog} --help")
        return args

    def _check_flags(self) -> None:
        """Refuse unknown long flags before argparse takes their values for positionals."""
        known = self._option_string_actions
        for token in self.tokens:
            flag = token.partition("=")[0]
            if flag == "--":
                return
            if flag.startswith("--") and flag not in known:
                hint = suggestion(flag, [name for name in known if name.startswith("--")])
                raise UsageError(
                    f"{self.prog}: got unknown option {flag!r}, expected one of those of "
                    f"{self.prog} --help. {hint}".strip()
                )

    def error(self, message: str) -> NoReturn:
        """argparse's own complaints as UsageError."""
        text = " ".join(message.split())
        raise UsageError(f"{self.prog}: {text}. See: {self.prog} --help")


class _Read(argparse.Action):
    """Stores read(text)."""

    def __init__(self, option_strings: Sequence[str], dest: str, read: Reader, **options: Any) -> None:
        super().__init__(option_strings, dest, **options)
        self.read = read

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        # argparse also passes the default of a positional that may be left out
        setattr(namespace, self.dest, values if values is self.default else self.read(values))
