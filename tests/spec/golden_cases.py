"""Reading the recorded cases in tests/golden/spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Json = Any

ROOT = Path(__file__).parent.parent / "golden" / "spec"


def load(path: str) -> Json:
    """The file with every {"$ref": …} replaced by what it stands for."""
    return _resolved(json.loads((ROOT / path).read_text()))


def index(*platforms: str) -> dict[str, str]:
    """Files of the cases by their names."""
    entries = json.loads((ROOT / "index.json").read_text())
    return {entry["name"]: entry["file"] for entry in entries if entry["platform"] in platforms}


def _resolved(value: Json) -> Json:
    if isinstance(value, dict):
        if "$ref" in value:
            target = load(value["$ref"])
            for key in value.get("path", ()):
                target = target[key]
            return target
        return {key: _resolved(item) for key, item in value.items()}
    return [_resolved(item) for item in value] if isinstance(value, list) else value
