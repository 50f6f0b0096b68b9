"""sh(1): where a script comes from, and how it is read."""

from __future__ import annotations

from podwright.engines.fake.programs.context import CHUNK, Context, encoded
from podwright.engines.fake.programs.shell.flow import Interrupted
from podwright.engines.fake.programs.shell.interpreter import SYNTAX_ERROR, Shell
from podwright.engines.fake.programs.shell.parser import Parser
from podwright.engines.fake.programs.shell.state import State
from podwright.engines.fake.programs.shell.syntax import Commands, ShellSyntaxError

PROMPT, NEXT_PROMPT = "/ # ", "> "
_FLAGS = "aefiluxs"


async def sh(context: Context) -> int:
    """`sh -c SCRIPT [NAME [ARGUMENT...]]`, `sh FILE [ARGUMENT...]`, or commands from standard input."""
    words, options, script = context.argv[1:], set[str](), False
    while words and words[0][:1] == "-" and len(words[0]) > 1:
        word = words.pop(0)
        if word in ("--", "--login"):
            continue
        for letter in word[1:]:
            if letter == "c":
                script = True
            elif letter == "o" and words:
                options.add(words.pop(0))
            elif letter in _FLAGS:
                options.add(letter)
            else:
                await context.error(f"illegal option -{letter}")
                return SYNTAX_ERROR
    if script and not words:
        await context.error("-c requires an argument")
        return SYNTAX_ERROR
    text = words.pop(0) if script else None
    name = words[0] if words else context.argv[0]
    state = State(context.env, name, words[1:], pid=context.process.pid, cwd=context.cwd)
    state.options = options & {"a", "e", "f", "u", "x", "pipefail"}
    state.variables["PWD"] = context.cwd
    shell = Shell(context, state)
    if text is not None:
        return await shell.main(_run(shell, text, last=True))
    if words and "s" not in options:
        try:
            stream = context.open(words[0])
        except OSError as error:
            await context.error(f"can't open '{words[0]}': {error.strerror}")
            return SYNTAX_ERROR
        content = await context.read_all(stream)
        stream.close()
        return await shell.main(_run(shell, content.decode(errors="surrogateescape"), last=True))
    return await shell.main(_converse(shell))


async def _run(shell: Shell, text: str, *, last: bool) -> int:
    """A script that is there as a whole. The last command is known as such before it runs."""
    parser = Parser(text)
    commands = parser.next()
    while commands is not None:
        following: Commands | ShellSyntaxError | None
        try:
            following = parser.next()
        except ShellSyntaxError as error:
            following = error  # what stands before it runs
        await shell.run(commands, last=last and following is None)
        if isinstance(following, ShellSyntaxError):
            raise following
        commands = following
    return shell.state.status


async def _converse(shell: Shell) -> int:
    """Commands from standard input, each as soon as it is complete."""
    stdin = shell.fds.get(0)
    prompting = stdin is not None and stdin.terminal
    if prompting:
        shell.traps.converse()
    text = ""
    while stdin is not None:
        if prompting:
            await shell.fds[2].write(encoded(NEXT_PROMPT if text else PROMPT))
        found: bytes | None = None
        try:
            found = await shell.traps.unless_caught(stdin.read(CHUNK, line=True))
            await shell.caught()
        except Interrupted as end:
            # What was typed before it is void; what came after it is not.
            text = await _void(shell, end)
        if found is None:
            continue
        line = found.decode(errors="surrogateescape")
        text += line
        try:
            Parser(text).next()
        except ShellSyntaxError as error:
            if line and error.incomplete:
                continue
            if not prompting:
                raise
            await shell.complain(f"syntax error: {error}")
            text = ""
            continue
        if line and not line.endswith("\n"):
            continue
        if text:
            try:
                await _run(shell, text, last=False)
            except Interrupted as end:
                await _void(shell, end)
        text = ""
        if not line:
            break
    return shell.state.status


async def _void(shell: Shell, end: Interrupted) -> str:
    shell.state.status = end.status
    await shell.fds[2].write(b"\n")
    return ""
