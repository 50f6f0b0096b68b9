"""Checkpoints of containers as archives: what is in one, writing and reading them. Nothing of any engine."""
