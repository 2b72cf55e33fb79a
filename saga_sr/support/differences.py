"""Where two nested settings differ."""

import json
from typing import Any


def differences(old: Any, new: Any, path: str = "") -> list[tuple[str, str]]:
    """(dotted path, ``path: old -> new``) of every leaf that differs between two JSON values."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            inner = f"{path}.{key}" if path else key
            found += differences(old.get(key), new.get(key), inner)
        return found
    if _hold_objects(old) and _hold_objects(new) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [one for k, pair in pairs for one in differences(*pair, f"{path}.{k}")]
    if old == new:
        return []
    return [(path, f"{path}: {json.dumps(old)} -> {json.dumps(new)}")]


def _hold_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)
