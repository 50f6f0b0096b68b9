"""Pods of a directory of manifests, kept running."""
