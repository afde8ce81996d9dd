"""What a text query imports, as a whole process: half a second counts, torch alone would take three."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import trivium

pytestmark = pytest.mark.weights
HEAVY = ("torch", "torchaudio", "torchvision", "timm", "transformers", "onnx", "PIL", "soundfile", "rich", "filelock")
OF_WRITERS = (
    *(f"ingest.{module}" for module in ("ingestion", "loading")),
    "store.writer",
    "search.indexing",
    *(f"upkeep.{module}" for module in ("exporting", "importing", "migration", "compaction", "verification")),
)
NEVER = (*HEAVY, "pathspec", "trivium.encoders.sandbox.pool", *(f"trivium.pipeline.{module}" for module in OF_WRITERS))


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, weights) -> Path:
    folder = tmp_path_factory.mktemp("cold")
    (folder / "note.txt").write_text("A lark sings above the field.")
    with trivium.Collection.open(folder / "collection", device="cpu") as made:
        made.add(folder / "note.txt")
    return folder / "collection"


def imported(arguments: list[str], *, given: str = "") -> set[str]:
    """Run a command as users do; return all that it imported."""
    code = (
        "import sys\nfrom trivium.pipeline.cli.main import main\nstatus = main(sys.argv[1:])\n"
        "print(*sys.modules, file=sys.stderr)\nsys.exit(status)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=120)
    assert "note.txt" in done.stdout
    return set(done.stderr.split())


def test_the_list_names_what_there_is() -> None:
    """Else a module that was renamed would never be found."""
    assert [name for name in NEVER if importlib.util.find_spec(name) is None] == []


def test_a_text_query(collection: Path) -> None:
    found = imported(["search", str(collection), "a bird", "--device", "cpu"])
    assert "onnxruntime" in found
    assert not found & set(NEVER)


def test_a_text_query_in_the_shell(collection: Path) -> None:
    found = imported(["shell", str(collection), "--json", "--device", "cpu"], given="a bird\n")
    assert "onnxruntime" in found
    assert not found & {*NEVER, "readline"}
