"""Names of `trivium.fusion` that need more than NumPy are looked up when asked for, and say what is missing."""

import subprocess
import sys

import pytest

import trivium.fusion

HIDE = "import sys; sys.modules['{name}'] = None\nimport trivium.fusion\n"


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(
    "name", ["BlockClassifier", "BlockRegressor", "FusedClassifier", "FusedRegressor", "FusedFeatures"]
)
def test_late_names(name: str) -> None:
    assert getattr(trivium.fusion, name).__name__ == name


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match=r"module 'trivium.fusion' has no attribute 'Fusor'"):
        _ = trivium.fusion.Fusor


def test_importing_brings_no_scikit_learn() -> None:
    code = "import sys, trivium.fusion, trivium.pipeline.cli.main\n"
    code += "print({'sklearn', 'scipy', 'pandas'} & set(sys.modules))"
    assert run(code).strip() == "set()"


def test_without_scikit_learn() -> None:
    code = HIDE.format(name="sklearn") + "try: trivium.fusion.FusedClassifier\nexcept ImportError as e: print(e)"
    assert run(code).strip() == ("trivium.fusion.FusedClassifier needs scikit-learn: run pip install 'trivium[learn]'")


def test_classify_without_scikit_learn() -> None:
    code = (
        "import importlib.util\nreal = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'sklearn' else real(name, *more)\n"
        "from trivium.pipeline.cli.main import main\nimport sys, io\nsys.stderr = sys.stdout\n"
        "print(main(['classify', 'predict', 'M', 'T', '--out', 'x.csv']))"
    )
    out = run(code)
    assert "this command needs pandas and scikit-learn: run pip install 'trivium[learn]'" in out
    assert out.strip().endswith("2")
