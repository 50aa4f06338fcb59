"""The command line as data: a verb says its options once, parsing and help both come from that.

Used by main.py and by every file of verbs. Written for gpuctl because argparse alone takes as
long to import as a `gpuctl submit` takes in all; so hot verbs and cold ones are parsed alike.

Rules: `--option VALUE` and `--option=VALUE`; a short option stands alone (`-n 20` or `-n20`);
options and words mix, except for a verb that runs a command: there the first word ends the
options. After `--` everything is a word. The last of a repeated option counts, unless the option
is `many`. Options are never abbreviated: a script must not break when an option is added.
"""

from __future__ import annotations

from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

HELP_COLUMN = 22
SHOWN = 60  # characters of a wrong value in a message


class Option:
    """`name` without dashes. Without a `metavar` it is a switch; `convert` raises ValueError.

    A value that is `secret` is not shown when it is wrong.
    """

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002
        metavar: str = "",
        convert: Callable[[str], Any] = str,
        *,
        short: str = "",
        many: bool = False,
        secret: bool = False,
    ) -> None:
        self.name, self.help, self.metavar = name, help, metavar
        self.convert, self.short, self.many = convert, short, many
        self.secret = secret

    def shown(self) -> str:
        both = f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"
        return f"{both} {self.metavar}".rstrip()


class Args:
    """A parsed command line: `args["name"]` is None (a switch: False) when it was not given."""

    def __init__(self, options: Sequence[Option]) -> None:
        self._values: dict[str, Any] = {
            o.name: [] if o.many else (None if o.metavar else False) for o in options
        }
        self.words: list[str] = []
        self.exact = False  # the words stand after `--`

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def take(self, option: Option, value: Any) -> None:
        if option.many:
            self._values[option.name].append(value)
        else:
            self._values[option.name] = value


class Verb:
    """`least` and `most` words (most None: any number); `run` gives the exit status.

    `exits` says which exit status each kind of error has; other kinds have `other`.
    """

    def __init__(
        self,
        name: str,
        summary: str,
        run: Callable[[Args], int],
        *,
        words: str = "",
        options: Sequence[Option] = (),
        about: str = "",
        examples: Sequence[str],
        least: int = 0,
        most: int | None = 0,
        runs_command: bool = False,
        exits: dict[str, int] | None = None,
        other: int = 1,
    ) -> None:
        self.name, self.summary, self.run, self.words = name, summary, run, words
        self.options = (*options, *COMMON)
        self.about, self.examples = about, examples
        self.least, self.most, self.runs_command = least, most, runs_command
        self.exits = EXITS if exits is None else exits
        self.other = other

    def exit_status(self, error: GpudError) -> int:
        return self.exits.get(error.kind, self.other)


EXITS = {"refused": 1, "usage": 2, "not-found": 3, "unreachable": 4}
SOCKET = Option("socket", "where gpud listens (default: GPUD_SOCKET, or look)", "PATH")
HELP = Option("help", "this text", short="h")
COMMON = (SOCKET, HELP)
JSON = Option("json", "gpud's answer as JSON (docs/protocol.md)")


def parse(verb: Verb, argv: Sequence[str]) -> Args:
    """Raises GpudError (usage) with one sentence about the first thing that is wrong."""
    args = Args(verb.options)
    long = {f"--{option.name}": option for option in verb.options}
    short = {f"-{option.short}": option for option in verb.options if option.short}
    rest = iter(argv)
    for word in rest:
        if word == "--":
            args.exact = not args.words
            args.words.extend(rest)
        elif word == "-" or not word.startswith("-"):
            args.words.append(word)
            if verb.runs_command:
                args.words.extend(rest)
        else:
            name, _, given = word.partition("=") if word.startswith("--") else (word[:2], "", "")
            option = long.get(name) or short.get(name)
            if option is None:
                raise _unknown(verb, name, [*long, *short])
            value = given if word.startswith("--") else word[2:]
            has_value = "=" in word if word.startswith("--") else bool(value)
            if not option.metavar and has_value:
                raise _wrong(verb, f"{name} takes no value")
            if option.metavar and not has_value:
                following = next(rest, None)
                if following is None:
                    raise _wrong(verb, f"{name} needs a value: {option.shown()}")
                value = following
            try:
                args.take(option, option.convert(value) if option.metavar else True)
            except ValueError as error:
                shown = name if option.secret else f'{name} "{_cut(value)}"'
                raise _wrong(verb, f"{shown}: {error}") from error
    if not args["help"]:
        _check_words(verb, args)
    return args


def _check_words(verb: Verb, args: Args) -> None:
    if len(args.words) < verb.least:
        raise _wrong(verb, f"{verb.words or 'a word'} is missing")
    if verb.most is not None and len(args.words) > verb.most:
        raise _wrong(verb, f'"{args.words[verb.most]}" is one word too many')


def _cut(value: str) -> str:
    return value if len(value) <= SHOWN else value[:SHOWN] + "…"


def _wrong(verb: Verb, why: str) -> GpudError:
    return GpudError(
        f"cannot {verb.name}: {why}", kind="usage", hint=f"see: gpuctl {verb.name} --help"
    )


def _unknown(verb: Verb, name: str, known: list[str]) -> GpudError:
    return GpudError(
        f"cannot {verb.name}: no such option: {name}{nearest(name, known)}",
        kind="usage",
        hint=f"see: gpuctl {verb.name} --help",
    )


def nearest(word: str, known: Sequence[str]) -> str:
    """A clause that names what was perhaps meant, or ""."""
    import difflib

    found = difflib.get_close_matches(word, known, 1, 0.6)
    return f" (did you mean {found[0]}?)" if found else ""


# -- values of options ---------------------------------------------------------------------


def whole_number(text: str) -> int:
    try:
        if not text.isascii():  # int() takes the digits of every script
            raise ValueError
        return int(text)
    except ValueError:
        raise ValueError("that is not a whole number") from None


def count(text: str) -> int:
    """A whole number, 0 or more."""
    number = whole_number(text)
    if number < 0:
        raise ValueError("that is less than 0")
    return number


UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def duration_s(text: str) -> float:
    """Seconds, or a sum of parts with units in falling order: `90`, `10m`, `2h30m`, `1.5d`."""
    total, number, units = 0.0, "", list(UNITS_S)
    try:
        for letter in text if text[-1:] in UNITS_S else text + "s":
            if letter in UNITS_S:
                units = units[units.index(letter) + 1 :]
                total += float(number) * UNITS_S[letter]
                number = ""
            elif letter in "0123456789.":
                number += letter
            else:
                raise ValueError
    except ValueError:
        raise ValueError("that is no duration; write 90s, 10m, 2h30m or 1d") from None
    return total


# -- help ----------------------------------------------------------------------------------


def help_of(verb: Verb) -> str:
    lines = [f"usage: gpuctl {verb.name} [options] {verb.words}".rstrip(), "", verb.summary]
    if verb.about:
        lines += ["", verb.about]
    lines += ["", "options:"]
    for option in verb.options:
        shown = f"  {option.shown()}"
        if len(shown) > HELP_COLUMN:
            lines.append(shown)
            shown = ""
        lines.append(f"{shown:<{HELP_COLUMN}}  {option.help}")
    lines += ["", "for example:", *(f"  {example}" for example in verb.examples)]
    return "\n".join(lines) + "\n"
