"""Random damage to JSON documents, for tests of readers that must never end in a traceback."""

import copy
import json
import random
from typing import Any

VALUES = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, -(2**70), 10**400, 0.5, -0.0, 1e30, -1e30, float("nan"),
    float("inf"), "", "0", "72.0", "N/A", "\ud800", "\0", "x" * 5000, [], {}, [[]], [None], [[1, 2]], [1e308] * 8,
    {"size": [48, 64], "counts": [5]}, {"size": [10**7, 10**6], "counts": [10**13]}, {"size": ["a", -1], "counts": 5},
    [350000000, 1, 5, 5, 1, 9], [[350000000.0, 1, 5, 5, 1, 9]], [[0, 0, 60, 40] * 3000],
)  # fmt: skip


def places(node: Any, path: tuple = ()) -> list[tuple]:
    """Every path to a value in a document, deep ones as likely as shallow ones."""
    found = [path] if path else []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found += places(value, (*path, key))
    return found


def damaged(document: Any, rng: random.Random) -> bytes:
    """The text of `document` with one to three places changed, or its bytes cut or overwritten."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2, 3))):
        found = places(document)
        if not found:
            break
        *way, last = rng.choice(found)
        parent = document
        for key in way:
            parent = parent[key]
        _change(parent, last, rng)
    text = json.dumps(document).encode()
    kind = rng.random()
    if kind < 0.05:
        return text[: rng.randrange(len(text))]
    if kind < 0.1:
        at = rng.randrange(len(text))
        return text[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5))) + text[at + 2 :]
    if kind < 0.12:
        at = rng.randrange(len(text))
        return text[:at] + b"[" * 100_000 + text[at:]
    return text


def _change(parent: Any, key: Any, rng: random.Random) -> None:
    action = rng.random()
    if action < 0.15:
        del parent[key]
    elif action < 0.25 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif action < 0.35 and isinstance(parent[key], (int, float)):
        parent[key] = str(parent[key])
    elif action < 0.45 and isinstance(parent[key], (int, float)):
        parent[key] = parent[key] * rng.choice((-1, 1000, 1e9, 0))
    else:
        parent[key] = copy.deepcopy(rng.choice(VALUES))
