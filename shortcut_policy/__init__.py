"""Robot policies that act in one network evaluation.

The public names are imported when they are first used: importing the package loads neither torch nor anything heavy.
"""

import importlib
from typing import Any

_PUBLIC = {
    "Policy": "shortcut_policy.policy",
    "PolicyConfig": "shortcut_policy.policy_config",
    "Trainer": "shortcut_policy.training.loop",
    "TrainerConfig": "shortcut_policy.training.config",
}
__all__ = list(_PUBLIC)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
