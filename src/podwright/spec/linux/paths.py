"""Paths inside containers: one spelling for each place."""

from __future__ import annotations

import posixpath


def clean(path: str) -> str:
    """Absolute, without ".", ".." and double slashes. (normpath keeps two slashes at the front.)"""
    return posixpath.normpath(f"/{path.lstrip('/')}")
