"""What the lexer must know of the shell's grammar to see where a job ends. Pure.

Owns one question: does the job go on after this line? Yes, if
1. the line ends in an odd number of backslashes that are not in a comment; or
2. a here-document is open: an unquoted `<<WORD` or `<<-WORD` outside arithmetic (`$((…))`, and
   bash's `((…))`), `${…}` and comments, that is not `<<<`. Several on a line queue up; the bodies
   begin after the first line that has no trailing backslash, as in a shell. With an unquoted
   delimiter a backslash joins the body's lines before they are compared with it; or
3. a here-document has been read inside `$(…)`, quoted or not, which is still open.
An open quote alone does not continue a job (one apostrophe would swallow the queue): the line
stands alone, and the shell complains about it in that job's output. Not understood, because shells
differ or it takes a whole parser: backquotes, `$'…'`, `case` patterns inside `$(…)`.

Used by the lexer for the few lines that need it. Must stay linear in the length of a line.
"""

from __future__ import annotations

import re

_BLANKS = b" \t"
_META = b" \t;&|<>()"
_BEFORE_COMMENT = frozenset(b" \t;&|()<>")

# What stops the scan, by the innermost open context: the bytes that open it, b"" for none.
_IN_COMMAND = re.compile(rb"[\\'\"#()]|<<+|\$\(\(|\$\(|\$\{")
_IN_DOUBLE = re.compile(rb"[\\\"]|\$\(\(|\$\(|\$\{")
_IN_BRACES = re.compile(rb"[\\'\"}]|\$\(\(|\$\(|\$\{")
_IN_SUM = re.compile(rb"[\\()]|\$\(\(|\$\(|\$\{")
_STOPS = {
    b"": _IN_COMMAND,
    b"$(": _IN_COMMAND,
    b"(": _IN_COMMAND,
    b'"': _IN_DOUBLE,
    b"${": _IN_BRACES,
    b"((": _IN_SUM,
    b"((-": _IN_SUM,  # a parenthesis within arithmetic
}


def ends_in_backslash(line: bytes) -> bool:
    return (len(line) - len(line.rstrip(b"\\"))) % 2 == 1


class ShellLines:
    """The state of one job's text, line by line. A fresh one for each job."""

    def __init__(self) -> None:
        self._open: list[bytes] = []  # contexts, innermost last
        self._documents: list[tuple[bytes, bool, bool]] = []  # delimiter, strip tabs, expands
        self._in_body = False
        self._had_document = False
        self._joined = b""  # a body line that a backslash joins with the next
        self._word_start = True  # whether a `#` at the start of the next line begins a comment

    def goes_on(self, line: bytes) -> bool:
        """Take in a complete line, without its newline; say whether the job continues after it."""
        if self._in_body:
            return self._body(line)
        comment = self._scan(line)
        if not comment and ends_in_backslash(line):
            before = line[-2:-1]
            if before:
                self._word_start = before[0] in _BEFORE_COMMENT
            return True
        self._word_start = True
        if self._documents:
            self._in_body = self._had_document = True
            return True
        return self._inside_substitution()

    def waits_for(self) -> str:
        """For people: what would end the job."""
        if self._in_body:
            word = self._documents[0][0].decode("utf-8", "replace")
            return f'the here-document that ends with "{word}" is still open'
        if self._had_document and self._inside_substitution():
            return "the $( around its here-document is still open"
        return "its last line ends in a backslash"

    def _inside_substitution(self) -> bool:
        return self._had_document and bool(self._open) and self._open[-1] in (b"$(", b"(")

    def _body(self, line: bytes) -> bool:
        delimiter, tabs, expands = self._documents[0]
        text = line.lstrip(b"\t") if tabs and not self._joined else line
        text = self._joined + text
        if expands and ends_in_backslash(line):
            # Only a beginning of the delimiter can still become it: nothing longer is kept.
            text = text[:-1]
            self._joined = text if delimiter.startswith(text) else b"\n"
            return True
        self._joined = b""
        if text == delimiter:
            del self._documents[0]
            self._in_body = bool(self._documents)
        return self._in_body or self._inside_substitution()

    def _scan(self, line: bytes) -> bool:
        """Follow quotes and find here-documents; True when the line ends in a comment."""
        stack = self._open
        at, glued = 0, -1 if self._word_start else 0  # `glued`: a `#` there continues a word
        while at < len(line):
            top = stack[-1] if stack else b""
            if top == b"'":
                at = line.find(b"'", at) + 1
                if at == 0:
                    return False
                stack.pop()
                glued = at
                continue
            stop = _STOPS[top].search(line, at)
            if stop is None:
                return False
            token, start, at = stop[0], stop.start(), stop.end()
            if token == b"\\":
                at = glued = at + 1
            elif token == b"#":
                if start != glued and (start == 0 or line[start - 1] in _BEFORE_COMMENT):
                    return True
            elif token.startswith(b"<<"):
                if len(token) == 2:
                    at = self._document(line, at)
                    glued = at
            elif token == b"'":
                if top != b"${" or b'"' not in stack:  # literal in "${x:-don't}"
                    stack.append(token)
            elif token == b'"':
                if top == b'"':
                    stack.pop()
                    glued = at
                else:
                    stack.append(token)
            elif token == b"$((":
                stack.append(b"((")
            elif token in (b"$(", b"${"):
                stack.append(token)
            elif token == b"}":
                stack.pop()
                glued = at
            else:
                at = self._parenthesis(line, token, start, at)
        return False

    def _parenthesis(self, line: bytes, token: bytes, start: int, at: int) -> int:
        stack = self._open
        top = stack[-1] if stack else b""
        in_sum = top in (b"((", b"((-")
        if token == b"(":
            if in_sum:
                stack.append(b"((-")
            elif line[at : at + 1] == b"(" and (start == 0 or line[start - 1] in _BEFORE_COMMENT):
                stack.append(b"((")  # bash's arithmetic command
                return at + 1
            elif top:
                stack.append(b"(")
        elif top == b"((":
            if line[at : at + 1] == b")":
                stack.pop()
                return at + 1
            stack[-1] = b"$("  # it was a subshell in a substitution; its inner half ends here
        elif top in (b"$(", b"(", b"((-"):
            stack.pop()
        return at

    def _document(self, line: bytes, at: int) -> int:
        """Read a here-document's delimiter from `at` on; return where the scan goes on."""
        tabs = line[at : at + 1] == b"-"
        at += tabs
        while line[at : at + 1] in (b" ", b"\t"):
            at += 1
        word, quoted = bytearray(), False
        while at < len(line) and line[at] not in _META:
            mark = line[at : at + 1]
            if mark in (b"'", b'"'):
                end = line.find(mark, at + 1)
                if end < 0:
                    return at  # an open quote: no delimiter
                word += line[at + 1 : end]
                quoted, at = True, end + 1
            elif mark == b"\\":
                if at + 1 == len(line):
                    break
                word += line[at + 1 : at + 2]
                quoted, at = True, at + 2
            else:
                word += mark
                at += 1
        if word or quoted:
            self._documents.append((bytes(word), tabs, not quoted))
        return at
