"""The checks of the documentation can fail: docs/ is on the path for them."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
sys.path.insert(0, str(DOCS))
