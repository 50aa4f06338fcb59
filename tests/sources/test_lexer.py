"""What is an entry, and what a chunk boundary must not change."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpud.sources.lexer import Entry, Lexer, Limits


def lex(*chunks: bytes, finish: bool = False, limits: Limits = Limits()) -> list[Entry]:  # noqa: B008
    lexer = Lexer(limits=limits)
    found = []
    for chunk in chunks:
        lexer.feed(chunk, 0.0)
        found += lexer.entries(1_000_000, 0.0)
    if finish:
        lexer.finish()
        found += lexer.entries(1_000_000, 0.0)
    return found


def commands(text: bytes, finish: bool = False) -> list[bytes]:
    return [entry.command for entry in lex(text, finish=finish)]


@pytest.mark.parametrize(
    "line",
    [
        b'python -c "print(1 << 2)"',
        b"echo $((1<<3))",
        b"echo $(( (1<<3) + (2 << 1) ))",
        b'echo "$((1<<3))"',
        b"((x << 2))",
        b"if ((x<<2)); then echo y; fi",
        b"echo 'a <<EOF'",
        b"echo \"a <<EOF\" 'b'",
        b"cat <<< word",
        b"cat <<<word",
        b"echo x # <<EOF",
        b"echo x;# <<EOF",
        b"echo ${x#<<y}",
        b"echo don't",  # an open quote does not go on
        b'echo "open',
        b"echo a\\\\",
        b"echo a # comment \\",
        b"cat <<",
        b"cat << ; echo",
    ],
)
def test_a_line_that_stands_alone(line: bytes) -> None:
    assert commands(line + b"\nnext\n") == [line, b"next"]


@pytest.mark.parametrize(
    "text",
    [
        b"a \\\nb",
        b"a \\\\\\\nb",
        b"sed 's/a/\\\n/'",
        b"a#b \\\nc",
        b"echo $# \\\nc",
        b"echo ${#x} ${x# y} \\\nc",
        b"cat <<EOF\nx\nEOF",
        b"cat << EOF\nx # \\\ny\nEOF",
        b"cat <<'E F'\nx\\\nE F",
        b'cat <<"EOF"\nEOF2\nEOF',
        b"cat <<\\EOF\n$x\nEOF",
        b"cat <<-EOF\n\t\tx\n\tEOF",
        b"cat <<A <<B\n1\nA\n2\nB",
        b"cat <<EOF | \\\nsort\nb\nEOF",
        b"cat <<EOF\nx \\\nEOF\ny\nEOF",  # the first EOF is joined to the line before
        b"cat <<EOF\n\\\nEOF",
        b"cat <<EOF; echo 'it'\ndon't\nEOF",
        b'git commit -m "$(cat <<EOF\ntext\nEOF\n)"',
        b"x=$(cat <<EOF\ntext\nEOF\n) && y",
        b"echo a\\\n#b \\\nc",
        b"cat <<EOF\n\n# no comment\n#gpud: nor=options\nEOF",
    ],
)
def test_a_job_of_several_lines(text: bytes) -> None:
    assert commands(text + b"\nnext\n") == [text, b"next"]


def test_what_runs_nothing() -> None:
    assert commands(b"\n  \t\n# c\n  # c \\\n\r\n#\na\n\n") == [b"a"]


def test_carriage_returns_go() -> None:
    assert commands(b"a \\\r\nb\r\nc\r\n\r\n") == [b"a \\\nb", b"c"]
    assert commands(b"cat <<E\r\nx\r\nE\r\nd\r\n") == [b"cat <<E\nx\nE", b"d"]


def test_a_partial_line_waits() -> None:
    assert commands(b"a\nb") == [b"a"]
    assert commands(b"a\nb", finish=True) == [b"a", b"b"]
    assert commands(b"", finish=True) == []


def test_line_numbers_and_offsets() -> None:
    first, second = lex(b"# c\n\na \\\n b\nc\n")
    assert (first.line, first.lines, first.offset, first.end) == (3, 2, 5, 12)
    assert (second.line, second.lines, second.offset, second.end) == (5, 1, 12, 14)


def test_options_are_for_the_next_entry_only() -> None:
    one, two, three = lex(b"#gpud: gpus=2\n# c\n\n #gpud: name=x\n# gpud: no\nrun\nrun\nrun\n")[:3]
    assert one.options == ((1, b" gpus=2"), (4, b" name=x"))
    assert (one.line, two.options, three.options) == (6, (), ())


def test_reading_never_starts_again_between_options_and_their_command() -> None:
    lexer = Lexer()
    lexer.feed(b"a\n#gpud: gpus=2\n\n", 0.0)
    assert len(lexer.entries(10, 0.0)) == 1
    assert (lexer.offset, lexer.line) == (2, 2)


def test_options_without_a_command() -> None:
    entry = lex(b"a\n#gpud: gpus=2\n", finish=True)[1]
    assert entry.problem == "no command follows"
    assert entry.line == 2


def test_what_stays_open_for_a_minute_is_given_up() -> None:
    lexer = Lexer()
    lexer.feed(b"#gpud: name=x\ncat <<EOF\nb\n", 0.0)
    assert lexer.entries(10, 59.0) == []
    assert lexer.deadline == 60.0
    lexer.feed(b"c \\\n", 30.0)
    assert lexer.entries(10, 89.0) == []
    broken, b = lexer.entries(2, 90.0)
    assert (broken.command, broken.line, broken.lines) == (b"cat <<EOF", 2, 1)
    assert "here-document" in broken.problem
    assert '"EOF"' in broken.problem
    assert broken.options
    assert (b.command, b.line, b.problem) == (b"b", 3, "")
    (c,) = lexer.entries(10, 90.0)
    assert "backslash" in c.problem
    assert not lexer.waiting
    assert lexer.offset == len(b"#gpud: name=x\ncat <<EOF\nb\nc \\\n")


def test_what_is_open_at_the_end_is_given_up() -> None:
    broken, x = lex(b"a \\\nx", finish=True)[:1] + lex(b"cat <<E\nx", finish=True)[1:]
    assert broken.command == b"a \\\nx"
    assert x.command == b"x"


def test_what_is_too_long_is_given_up() -> None:
    limits = Limits(max_lines=3, max_bytes=100)
    found = lex(b"cat <<E\n1\n2\n3\n4\nE\n", limits=limits)
    assert [entry.command for entry in found] == [b"cat <<E", b"1", b"2", b"3", b"4", b"E"]
    assert "more than 3 lines" in found[0].problem
    found = lex(b"cat <<E\n" + b"x" * 95 + b"\nE\n", limits=limits)
    assert [entry.command for entry in found] == [b"cat <<E", b"x" * 95, b"E"]
    assert "100 bytes" in found[0].problem


def test_an_overlong_line_is_one_problem() -> None:
    limits = Limits(max_bytes=10)
    lexer = Lexer(limits=limits)
    lexer.feed(b"a\n" + b"x" * 11, 0.0)
    _, entry = lexer.entries(10, 0.0)
    assert entry.problem == "it is longer than 10 bytes"
    assert lexer.in_line
    again = Lexer(lexer.offset, lexer.line, in_line=True)
    for each in (lexer, again):
        each.feed(b"yyyy", 0.0)
        each.feed(b"y\nb\n", 0.0)
        (b,) = each.entries(10, 0.0)
        assert (b.command, b.line, b.offset) == (b"b", 3, 19)


def test_a_limit_stops_exactly_there() -> None:
    seen = bytearray()
    lexer = Lexer(consumed=seen.extend)
    lexer.feed(b"a\nb\n# c\nd\n", 0.0)
    assert len(lexer.entries(2, 0.0)) == 2
    assert (bytes(seen), lexer.offset) == (b"a\nb\n", 4)


PIECES = st.sampled_from(
    [
        *(b"\n", b"\\\n", b"\\", b"<<", b"<<-", b"<", b"E", b"\nE\n", b"'", b'"', b"$(", b"$(("),
        *(b"${", b")", b"))", b"}", b"#", b"\n#gpud: a=b\n", b" ", b"\t", b"\r\n", b"a", b"\0"),
        *(b"\xff", b"("),
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map(b"".join)


@st.composite
def cut(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    text = draw(st.one_of(TEXTS, st.binary(max_size=200)))
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    ends = [0, *places, len(text)]
    return text, [text[a:b] for a, b in pairwise(ends)]


@settings(max_examples=300)
@given(cut=cut(), finish=st.booleans(), lines=st.integers(1, 6), size=st.integers(1, 40))
@example(cut=(b"ab\n", [b"a", b"b\n"]), finish=False, lines=3, size=1)
def test_chunks_change_nothing_and_every_byte_is_consumed_once(
    cut: tuple[bytes, list[bytes]], finish: bool, lines: int, size: int
) -> None:
    text, chunks = cut
    limits = Limits(max_lines=lines, max_bytes=size)
    whole = lex(text, finish=finish, limits=limits)
    assert lex(*chunks, finish=finish, limits=limits) == whole

    seen = bytearray()
    lexer = Lexer(consumed=seen.extend, limits=limits)
    found = []
    for chunk in chunks:
        lexer.feed(chunk, 0.0)
        while entries := lexer.entries(1, 0.0):
            found += entries
            assert bytes(seen) == text[: lexer.offset]
            assert lexer.line == 1 + text[: lexer.offset].count(b"\n")
    if finish:
        lexer.finish()
        found += lexer.entries(1_000_000, 0.0)
        assert bytes(seen) == text
    assert found == whole
    assert bytes(seen) == text[: lexer.offset]
    ends = [0, *(entry.end for entry in found)]
    for entry, before in zip(found, ends, strict=False):
        assert before <= entry.offset < entry.end <= len(text)
        assert entry.line == 1 + text[: entry.offset].count(b"\n")


@settings(max_examples=200)
@given(text=TEXTS, at=st.integers(0, 30))
def test_reading_can_start_again_where_it_stopped(text: bytes, at: int) -> None:
    whole = lex(text)
    lexer = Lexer()
    lexer.feed(text, 0.0)
    first = lexer.entries(at, 0.0)
    again = Lexer(lexer.offset, lexer.line, in_line=lexer.in_line)
    again.feed(text[lexer.offset :], 0.0)
    assert first + again.entries(1_000_000, 0.0) == whole


@pytest.mark.parametrize("shell", ["dash", "bash"])
@settings(max_examples=25)
@given(
    body=st.lists(
        st.sampled_from([b"x", b"E", b"\tE", b"x\\", b"\\", b"E\\", b"F", b""]), max_size=6
    ),
    operator=st.sampled_from([b"<<E", b"<<-E", b"<<'E'", b"<< \\E", b"<<E <<F"]),
)
def test_a_here_document_ends_where_the_shell_says(
    shell: str, body: list[bytes], operator: bytes
) -> None:
    """Everything after the entry is what the shell runs next."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    if shell == "dash" and b"E\\" in body:
        return  # dash compares before it joins, bash after
    text = b"cat " + operator + b" >/dev/null\n" + b"".join(line + b"\n" for line in body)
    lexer = Lexer()
    lexer.feed(text + b"E\nF\n", 0.0)
    entries = lexer.entries(1, 0.0)
    if not entries:
        return
    probe = text + b"E\nF\n"
    probe = probe[: entries[0].end] + b"echo here\n"
    done = subprocess.run([shell], input=probe, capture_output=True, check=False)
    assert done.stdout == b"here\n"
    assert b"here-document" not in done.stderr
