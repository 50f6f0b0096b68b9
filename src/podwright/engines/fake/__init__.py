"""The fake engine: pods that live in memory, scripted by a scenario."""
