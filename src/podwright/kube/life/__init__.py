"""Doing it: the worker of a pod, its starts, stops, pulls, hooks and events."""
