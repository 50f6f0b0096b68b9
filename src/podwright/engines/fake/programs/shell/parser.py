"""Scripts from tokens, by the shell's grammar (POSIX XCU 2.10). Pure.

A script is read one complete command after the other, as a shell does it: what stands before an error runs.
"""

from __future__ import annotations

from dataclasses import replace

from podwright.engines.fake.programs.shell.lexer import NAME, Lexer, Token
from podwright.engines.fake.programs.shell.syntax import (
    AndOr,
    Case,
    Command,
    Commands,
    For,
    Function,
    Group,
    HereDocument,
    If,
    Literal,
    Loop,
    Pipeline,
    Redirection,
    ShellSyntaxError,
    Simple,
    Subshell,
    Word,
)

RESERVED = frozenset(
    [
        "!",
        "{",
        "}",
        "case",
        "do",
        "done",
        "elif",
        "else",
        "esac",
        "fi",
        "for",
        "if",
        "in",
        "then",
        "until",
        "while",
    ]
)
_REDIRECTIONS = ("<", ">", ">>", "<>", ">|", "<&", ">&", "<<", "<<-")


class Parser:
    def __init__(self, text: str) -> None:
        self._lexer = Lexer(text, _inner)
        self._token: Token | None = None

    @property
    def place(self) -> int:
        """How much of the text the commands that were given took."""
        return self._lexer.place

    def next(self) -> Commands | None:
        """The commands up to the end of a line (or what they need to be complete); None at the end.

        ShellSyntaxError.
        """
        while self._peek().kind == "newline":
            self._take()
        if self._peek().kind == "end":
            return None
        items = self._line()
        if self._peek().kind not in ("newline", "end"):
            raise self._unexpected()
        # The newline is taken now, so that `place` is behind it and its here-documents are read.
        self._take()
        return items

    # Lists

    def _line(self) -> Commands:
        """and_or lists separated by ";" and "&", all of one line."""
        items = []
        while True:
            item = self._and_or()
            token = self._peek()
            background = token.kind == "operator" and token.text == "&"
            items.append(AndOr(item.first, item.rest, background))
            if token.kind != "operator" or token.text not in (";", "&"):
                break
            self._take()
            if not self._starts_command():
                break
        return Commands(tuple(items))

    def _starts_command(self) -> bool:
        token = self._peek()
        if token.kind in ("newline", "end"):
            return False
        if token.kind == "operator":
            return token.text == "(" or token.text in _REDIRECTIONS
        return not (token.plain and token.text in ("then", "do", "done", "fi", "else", "elif", "esac", "}"))

    def _body(self, *ends: str) -> Commands:
        """Commands over several lines, up to one of the reserved words `ends` (or ")", ";;")."""
        items: list[AndOr] = []
        while True:
            while self._peek().kind == "newline":
                self._take()
            if self._at(*ends):
                break
            if self._peek().kind == "end":
                raise ShellSyntaxError(f'unexpected end of file (expecting "{ends[0]}")', incomplete=True)
            items += self._line().items
            if not self._at(*ends) and self._peek().kind not in ("newline", "end"):
                raise self._unexpected(ends[0])
        if not items:
            raise self._unexpected()
        return Commands(tuple(items))

    def _and_or(self) -> AndOr:
        first, rest = self._pipeline(), []
        while self._at_operator("&&", "||"):
            operator = self._take().text
            self._skip_newlines()
            rest.append((operator, self._pipeline()))
        return AndOr(first, tuple(rest))

    def _pipeline(self) -> Pipeline:
        negated = False
        while self._at("!"):
            self._take()
            negated = not negated
        commands = [self._command()]
        while self._at_operator("|"):
            self._take()
            self._skip_newlines()
            commands.append(self._command())
        return Pipeline(tuple(commands), negated)

    # Commands

    def _command(self) -> Command:
        with self._lexer.nested():
            token = self._peek()
            if token.kind == "operator" and token.text == "(":
                return self._with_redirections(self._subshell())
            if token.kind == "word" and token.plain and token.text in RESERVED:
                compound = {
                    "{": self._group,
                    "if": self._if,
                    "while": self._loop,
                    "until": self._loop,
                    "for": self._for,
                    "case": self._case,
                }.get(token.text)
                if compound is None:
                    raise self._unexpected()
                return self._with_redirections(compound())
            return self._simple()

    def _with_redirections(self, command: Command) -> Command:
        redirections = []
        while (found := self._redirection()) is not None:
            redirections.append(found)
        if redirections and not isinstance(command, Function):
            return replace(command, redirections=tuple(redirections))
        return command

    def _subshell(self) -> Command:
        self._take()
        body = self._body(")")
        self._take()
        return Subshell(body)

    def _group(self) -> Command:
        self._take()
        body = self._body("}")
        self._take()
        return Group(body)

    def _if(self) -> Command:
        branches = []
        otherwise = None
        self._take()
        while True:
            condition = self._body("then")
            self._take()
            branches.append((condition, self._body("fi", "elif", "else")))
            word = self._take().text
            if word == "else":
                otherwise = self._body("fi")
                self._take()
            if word != "elif":
                return If(tuple(branches), otherwise)

    def _loop(self) -> Command:
        until = self._take().text == "until"
        condition = self._body("do")
        self._take()
        body = self._body("done")
        self._take()
        return Loop(condition, body, until)

    def _for(self) -> Command:
        self._take()
        token = self._take()
        if token.kind != "word" or not token.plain or not NAME.fullmatch(token.text):
            raise ShellSyntaxError("bad for loop variable", incomplete=token.kind == "end")
        words: tuple[Word, ...] | None = None
        self._skip_newlines()
        if self._at("in"):
            self._take()
            found = []
            while self._peek().kind == "word":
                found.append(self._take().word)
            words = tuple(found)
            if not self._at_operator(";") and self._peek().kind != "newline":
                raise self._unexpected("do")
            self._take()
        elif self._at_operator(";"):
            self._take()
        self._skip_newlines()
        self._expect("do")
        body = self._body("done")
        self._take()
        return For(token.text, words, body)

    def _case(self) -> Command:
        self._take()
        token = self._take()
        if token.kind != "word":
            raise self._refused(token)
        self._skip_newlines()
        self._expect("in")
        items = []
        self._skip_newlines()
        while not self._at("esac"):
            if self._at_operator("("):
                self._take()
            patterns = [self._pattern()]
            while self._at_operator("|"):
                self._take()
                patterns.append(self._pattern())
            self._expect_operator(")")
            self._skip_newlines()
            empty = self._at(";;", "esac")
            items.append((tuple(patterns), Commands() if empty else self._body(";;", "esac")))
            if self._at(";;"):
                self._take()
            self._skip_newlines()
        self._take()
        return Case(token.word, tuple(items))

    def _pattern(self) -> Word:
        token = self._take()
        if token.kind != "word":
            raise self._refused(token)
        return token.word

    def _simple(self) -> Command:
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirections: list[Redirection] = []
        while True:
            redirection = self._redirection()
            if redirection is not None:
                redirections.append(redirection)
                continue
            token = self._peek()
            if token.kind != "word":
                break
            self._take()
            assignment = _assignment(token) if not words else None
            if assignment is not None:
                assignments.append(assignment)
            else:
                words.append(token.word)
            if len(words) == 1 and token.plain and not assignments and self._at_operator("("):
                return self._function(token.text)
        if not (assignments or words or redirections):
            raise self._unexpected()
        return Simple(tuple(assignments), tuple(words), tuple(redirections))

    def _function(self, name: str) -> Command:
        self._take()
        self._expect_operator(")")
        if not NAME.fullmatch(name):
            raise ShellSyntaxError("bad function name")
        self._skip_newlines()
        return Function(name, self._command())

    def _redirection(self) -> Redirection | None:
        token = self._peek()
        fd = None
        if token.kind == "number":
            fd = int(self._take().text)
            token = self._peek()
        if token.kind != "operator" or token.text not in _REDIRECTIONS:
            return None
        operator = self._take().text
        target = self._take()
        if target.kind not in ("word", "number"):
            raise self._refused(target)
        if fd is None:
            fd = 0 if operator[0] == "<" else 1
        word = target.word if target.kind == "word" else (Literal(target.text),)
        if operator in ("<<", "<<-"):
            return self._here_document(fd, operator == "<<-", target)
        return Redirection(fd, operator, word)

    def _here_document(self, fd: int, strip_tabs: bool, target: Token) -> Redirection:
        delimiter = "".join(part.text for part in target.word if isinstance(part, Literal)) or target.text
        quoted = any(isinstance(part, Literal) and part.quoted for part in target.word)
        document = HereDocument(delimiter, strip_tabs, expanded=not quoted)
        self._lexer.promise(document)
        return Redirection(fd, "<<", document=document)

    # Tokens

    def _peek(self) -> Token:
        if self._token is None:
            self._token = self._lexer.next()
        return self._token

    def _take(self) -> Token:
        token = self._peek()
        self._token = None
        return token

    def _at(self, *words: str) -> bool:
        token = self._peek()
        if token.kind == "operator":
            return token.text in words and token.text in (")", ";;")
        return token.kind == "word" and token.plain and token.text in words

    def _at_operator(self, *texts: str) -> bool:
        token = self._peek()
        return token.kind == "operator" and token.text in texts

    def _skip_newlines(self) -> None:
        while self._peek().kind == "newline":
            self._take()

    def _expect(self, word: str) -> None:
        if not self._at(word):
            raise self._unexpected(word)
        self._take()

    def _expect_operator(self, text: str) -> None:
        if not self._at_operator(text):
            raise self._unexpected(text)
        self._take()

    def _unexpected(self, expected: str = "") -> ShellSyntaxError:
        return self._refused(self._peek(), expected)

    def _refused(self, token: Token, expected: str = "") -> ShellSyntaxError:
        what = {"end": "end of file", "newline": "newline"}.get(token.kind, f'"{token.text}"')
        expecting = f' (expecting "{expected}")' if expected else ""
        return ShellSyntaxError(f"unexpected {what}{expecting}", incomplete=token.kind == "end")


def _inner(lexer: Lexer) -> Commands:
    """The commands of a substitution, up to its ")"."""
    parser = Parser("")
    parser._lexer = lexer
    items: list[AndOr] = []
    while True:
        parser._skip_newlines()
        if parser._at(")"):
            return Commands(tuple(items))
        if parser._peek().kind == "end":
            raise ShellSyntaxError('unexpected end of file (expecting ")")', incomplete=True)
        items += parser._line().items
        if not parser._at(")") and parser._peek().kind not in ("newline", "end"):
            raise parser._unexpected(")")


def _assignment(token: Token) -> tuple[str, Word] | None:
    """NAME=WORD, where the name is not quoted."""
    if not token.word or not isinstance(token.word[0], Literal) or token.word[0].quoted:
        return None
    first = token.word[0]
    match = NAME.match(first.text)
    if match is None or not first.text.startswith("=", match.end()):
        return None
    rest = first.text[match.end() + 1 :]
    return match[0], (Literal(rest), *token.word[1:]) if rest else token.word[1:]


def parse(text: str) -> Commands:
    """All of a script at once. ShellSyntaxError."""
    parser, items = Parser(text), list[AndOr]()
    while (found := parser.next()) is not None:
        items += found.items
    return Commands(tuple(items))
