"""FAISS without its type stubs, which do not know half of what is used here."""

from typing import Any

import faiss as _typed

faiss: Any = _typed
