"""A small POSIX shell: the `sh` of fake containers. Syntax is pure; only `interpreter` acts."""
