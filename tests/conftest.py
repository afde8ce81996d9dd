"""Fixtures that several packages' tests need: the real weights, and the slow reference implementations."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from trivium.encoders.weights import WEIGHTS, WeightsError, fetch

# A busy machine is not a bug: no time limit per example. No database: nothing is written into the checkout.
settings.register_profile("trivium", deadline=None, database=None)
settings.load_profile("trivium")


@pytest.fixture(scope="session")
def weights() -> dict[str, Path]:
    """Folders of the real weights by name. Without them tests are skipped, or fail under TRIVIUM_REQUIRE_WEIGHTS."""
    try:
        return {name: fetch(pinned) for name, pinned in WEIGHTS.items()}
    except WeightsError as error:
        if os.environ.get("TRIVIUM_REQUIRE_WEIGHTS"):
            pytest.fail(f"TRIVIUM_REQUIRE_WEIGHTS is set, but: {error}")
        pytest.skip(f"no weights: {error}")


@pytest.fixture(scope="session")
def reference() -> Callable[[str], ModuleType]:
    """Load a module of tests/reference, which is no package, by its name."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parent / "reference" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"trivium_reference_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
