"""What a shell knows: variables, positional parameters, functions, options. A subshell gets a copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from podwright.engines.fake.programs.shell.flow import ExpansionError
from podwright.engines.fake.programs.shell.syntax import Command


class State:
    def __init__(
        self, environment: dict[str, str], name: str, arguments: list[str], *, pid: int, cwd: str
    ) -> None:
        self.variables = dict(environment)
        self.exported = set(environment)
        self.readonly: set[str] = set()
        self.functions: dict[str, Command] = {}
        self.options: set[str] = set()
        """Letters, and "pipefail"."""
        self.name = name
        self.positional = arguments
        self.pid = pid
        """What $$ is; a subshell has its parent's."""
        self.cwd = cwd
        self.status = 0
        self.last_background = 0
        self._locals: list[dict[str, str | None]] = []
        """What names stood for before the functions at hand made them their own."""

    def copy(self) -> State:
        made = State(self.variables, self.name, list(self.positional), pid=self.pid, cwd=self.cwd)
        made.exported, made.readonly = set(self.exported), set(self.readonly)
        made.functions, made.options = dict(self.functions), set(self.options)
        made.status, made.last_background = self.status, self.last_background
        return made

    def variable(self, name: str) -> str | None:
        return self.variables.get(name)

    def get(self, name: str) -> str:
        return self.variables.get(name, "")

    def set(self, name: str, value: str) -> None:
        """ExpansionError when it is read-only."""
        if name in self.readonly:
            raise ExpansionError(f"{name}: is read only")
        self.variables[name] = value
        if "a" in self.options:
            self.exported.add(name)

    def parameter(self, name: str) -> str | None:
        """The value of a parameter of any kind; None when it is not set."""
        if name.isdecimal():
            number = int(name)
            if number == 0:
                return self.name
            return self.positional[number - 1] if number <= len(self.positional) else None
        match name:
            case "?":
                return str(self.status)
            case "$":
                return str(self.pid)
            case "!":
                return str(self.last_background or "")
            case "#":
                return str(len(self.positional))
            case "-":
                return "".join(sorted(each for each in self.options if len(each) == 1))
            case "@" | "*":
                return " ".join(self.positional) if self.positional else None
        return self.variables.get(name)

    @property
    def environment(self) -> dict[str, str]:
        """What programs get."""
        return {name: value for name, value in self.variables.items() if name in self.exported}

    @contextmanager
    def assigned(self, assigned: dict[str, str]) -> Iterator[None]:
        """Variables that hold for one command."""
        before = {name: (self.variables.get(name), name in self.exported) for name in assigned}
        for name, value in assigned.items():
            self.set(name, value)
            self.exported.add(name)
        try:
            yield
        finally:
            for name, (old, was_exported) in before.items():
                self._restore(name, old)
                if not was_exported:
                    self.exported.discard(name)

    @contextmanager
    def called(self, arguments: list[str]) -> Iterator[None]:
        """Inside a function."""
        before, self.positional = self.positional, arguments
        self._locals.append({})
        try:
            yield
        finally:
            for name, value in self._locals.pop().items():
                self._restore(name, value)
            self.positional = before

    @property
    def calls(self) -> int:
        """Functions that the command at hand is in."""
        return len(self._locals)

    def keep_local(self, name: str) -> None:
        """The variable gets its value back when the function at hand ends."""
        if self._locals:
            self._locals[-1].setdefault(name, self.variables.get(name))

    def _restore(self, name: str, value: str | None) -> None:
        if value is None:
            self.variables.pop(name, None)
        else:
            self.variables[name] = value
