"""Where the package's own data (config, models, launch) lies: an ament or pip install, or a source checkout."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = "threedme_ros"
DEMO_CHECKPOINT = "models/3dme_small_demo.safetensors"
DEMO_PROMPT_DECODER = "models/3dme_small_prompt.safetensors"


def share_path(relative: str) -> Path:
    """The installed file ``relative`` (e.g. ``config/anatomy.yaml``); FileNotFoundError lists where it was sought."""
    here = Path(__file__).resolve()
    roots = [here.parent.parent]  # a checkout, or pip install -e
    # colcon: <prefix>/lib/python3.x/site-packages/threedme_ros; pip: the same below sys.prefix; Debian: local/lib
    roots += [parent / "share" / PACKAGE for parent in here.parents]
    roots.append(Path(sys.prefix) / "share" / PACKAGE)
    for root in roots:
        if (root / relative).exists():
            return root / relative
    raise FileNotFoundError(f"{relative}: not under any of {[str(r) for r in roots]}; is {PACKAGE} installed?")
