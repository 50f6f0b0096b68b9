"""Exec, attach and port-forward: the protocols that carry a process's streams between client and engine."""
