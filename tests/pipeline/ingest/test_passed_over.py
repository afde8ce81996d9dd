"""What a run does not take is told: by suffix with counts and reasons, by pattern, and what goes because of one."""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from trivium.pipeline import collection as collection_module
from trivium.pipeline import suffixes
from trivium.pipeline.cli.terminal import excerpt_of
from trivium.pipeline.collection import Collection
from trivium.pipeline.search.query import QueryError
from trivium.pipeline.store.store import Store


@pytest.fixture(autouse=True)
def stub(space, monkeypatch: pytest.MonkeyPatch):
    """The commands load the stub instead of networks."""
    monkeypatch.setattr(collection_module, "load_space", lambda *_, **__: space)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have libraries not be installed."""

    def without(*modules: str) -> None:
        monkeypatch.setattr(suffixes, "is_installed", lambda name: name not in modules)

    return without


def names(collection: Collection) -> set[str]:
    return {os.path.basename(path) for path in Store(collection.folder).states()}


def test_it_is_told_by_suffix(tmp_path: Path, media: Path, run, without) -> None:
    without("av", "rawpy")
    for number in range(3):
        (media / f"{number}.m4a").write_bytes(b"x")
    (media / "deep" / "IMG.CR2").write_bytes(b"x")
    (media / "LICENSE").write_bytes(b"x")
    status, out, _ = run("index", str(tmp_path / "c"), str(media))
    assert status == 0
    lines = [line.strip() for line in out.splitlines()]
    after = lines[lines.index("passed over:") + 1 :][:4]
    assert after[0] == "3 .m4a: needs trivium[video]"
    assert set(after[1:]) == {
        "1 .cr2: needs trivium[raw]",
        "1 .xmp: not a kind that is indexed",
        "1 without a suffix: not a kind that is indexed",
    }
    status, out, _ = run("index", str(tmp_path / "c"), str(media), "--json", "--strict")
    assert status == 3
    told = json.loads(out)
    assert told["passed_over"] == {
        ".m4a": {"count": 3, "reason": "needs trivium[video]", "extra": "video"},
        ".cr2": {"count": 1, "reason": "needs trivium[raw]", "extra": "raw"},
        ".xmp": {"count": 1, "reason": "not a kind that is indexed", "extra": None},
        "": {"count": 1, "reason": "not a kind that is indexed", "extra": None},
    }
    assert told["ignored"] == 6


def test_strict_bears_what_nobody_could_index(tmp_path: Path, media: Path, run) -> None:
    status, out, _ = run("index", str(tmp_path / "c"), str(media), "--strict")
    assert status == 0
    assert "1 .xmp: not a kind that is indexed" in out


def test_a_file_that_is_named_says_the_same(tmp_path: Path, media: Path, run, without) -> None:
    without("av")
    (media / "a.m4a").write_bytes(b"x")
    status, out, _ = run("index", str(tmp_path / "c"), str(media / "a.m4a"), str(media / "readme.xmp"))
    assert status == 0
    assert "a.m4a: needs trivium[video] (run pip install 'trivium[video]')" in out
    assert "readme.xmp: not a kind of file that is indexed (.jpg " in out


def test_what_is_known_of_a_file_stays_when_its_decoder_is_gone(
    tmp_path: Path, media: Path, space, without, reference: Callable[[str], ModuleType]
) -> None:
    (media / "talk.m4a").write_bytes(reference("videos").sound("m4a", "aac"))
    collection = Collection.open(tmp_path / "c", space=space)
    assert collection.add(media).added == 8
    without("av")
    summary = collection.add(media)
    assert (summary.unchanged, summary.removed, summary.undecodable) == (7, 0, 1)
    assert "talk.m4a" in names(collection)


def test_the_caption_of_a_file_that_is_passed_over_is_no_text_of_its_own(
    tmp_path: Path, media: Path, space, without
) -> None:
    without("rawpy")
    (media / "IMG.nef").write_bytes(b"x")
    (media / "IMG.txt").write_text("A caption.")
    (media / "IMG.nef.json").write_text("{}")
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media)
    assert {suffix: passed.count for suffix, passed in summary.passed.items()} == {".nef": 1, ".xmp": 1}
    assert "IMG.txt" not in names(collection)


def test_what_is_excluded_is_told_and_dropped(tmp_path: Path, media: Path, run) -> None:
    folder = str(tmp_path / "c")
    (media / ".DS_Store").write_bytes(b"x")
    assert run("index", folder, str(media))[0] == 0
    status, out, _ = run("index", folder, str(media), "--exclude", "deep/", "--exclude", "*.md")
    assert status == 0
    assert "3 removed, 0 skipped" in out
    assert "excluded:\n" in out
    assert "  1 by .*\n" in out
    assert "2 removed: excluded by deep/\n" in out
    assert "1 removed: excluded by *.md\n" in out
    told = json.loads(run("index", folder, str(media), "--exclude", "red.*", "--json")[1])
    assert (told["added"], told["removed"]) == (3, 1)
    assert told["excluded"] == {"red.*": 2, ".*": 1}
    assert told["removed_as_excluded"] == {"red.*": 1}


def test_a_file_of_patterns_counts_too(tmp_path: Path, media: Path, space) -> None:
    collection = Collection.open(tmp_path / "c", space=space)
    (media / ".triviumignore").write_text("*.png\n*.wav\n!low.wav\n")
    summary = collection.add(media, exclude="poem.*")
    assert names(collection) == {"blue.jpg", "green.webp", "low.wav", "high.ogg", "note.md", "red.txt"}
    assert summary.excluded == {"*.png": 1, "poem.*": 1}
    (media / ".triviumignore").unlink()
    assert collection.add(media, exclude=["red.*"]).added == 1  # poem.txt
    with pytest.raises(ValueError, match="an empty pattern or a comment excludes nothing: ''"):
        collection.add(media, exclude="")


def test_a_moved_file_keeps_what_is_known_though_its_old_place_is_excluded(tmp_path: Path, media: Path, space) -> None:
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media)
    shutil.copy(media / "deep" / "high.ogg", media / "tone.ogg")
    summary = collection.add(media, exclude="deep")
    assert (summary.renamed, summary.removed, summary.removed_as_excluded) == (1, 1, {"deep": 1})


def test_documents_are_texts_whose_hits_say_the_page(
    tmp_path: Path, media: Path, space, reference: Callable[[str], ModuleType]
) -> None:
    (media / "book.pdf").write_bytes(reference("documents").pdf(["Chapter one", "About foxes"]))
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media)
    assert summary.skipped == []
    (hit,) = [hit for hit in collection.search(text="Chapter one\fAbout foxes", k=20) if hit.path.endswith(".pdf")]
    assert (hit.modality, hit.caption) == ("text", "Chapter one")


def test_queries_say_what_the_table_says(tmp_path: Path, media: Path, space, without) -> None:
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media)
    (media / "a.cr2").write_bytes(b"II*\0\x10\0\0\0CR\x02\0")
    (media / "b.m4a").write_bytes(b"x" * 100)
    with pytest.raises(QueryError, match=r"it is no picture, but by its name a sound \(\.m4a\)"):
        collection.search(image=str(media / "b.m4a"))
    without("rawpy", "av")
    with pytest.raises(QueryError, match=r"needs trivium\[video\] \(run pip install 'trivium\[video\]'\)"):
        collection.search(image=str(media / "b.m4a"))
    with pytest.raises(QueryError, match=r"needs trivium\[raw\] \(run pip install 'trivium\[raw\]'\)"):
        collection.search(image=media / "a.cr2")


def test_an_excerpt_says_the_page(tmp_path: Path, reference: Callable[[str], ModuleType]) -> None:
    from trivium.pipeline.ingest.scanning import fingerprint
    from trivium.pipeline.search.retrieval import Hit

    path = tmp_path / "book.pdf"
    path.write_bytes(reference("documents").pdf(["Chapter one", "About foxes"]))
    found = Hit(
        path=str(path),
        modality="text",
        score=1.0,
        caption=None,
        matched="passage",
        start=12,
        stop=23,
        fingerprint=fingerprint(path.lstat()),
    )
    assert excerpt_of(found) == "page 2: … About foxes"


def test_raw_files_are_pictures(tmp_path: Path, media: Path, space, reference: Callable[[str], ModuleType]) -> None:
    file = io.BytesIO()
    Image.new("RGB", (160, 120), "red").save(file, "JPEG")
    (media / "IMG_1.DNG").write_bytes(reference("documents").dng(file.getvalue()))
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media)
    assert (summary.added, summary.skipped) == (8, [])
    assert [problem.reason for problem in summary.notes] == []
    assert collection.info().items["image"] == 4


def test_excludes_are_kept_for_later_runs(tmp_path: Path, media: Path, run) -> None:
    folder = str(tmp_path / "c")
    assert run("index", folder, str(media), "--exclude", "deep")[0] == 0
    assert json.loads(run("index", folder, "--json")[1])["excluded"] == {"deep": 1}
    told = json.loads(run("index", folder, str(media), "--no-exclude", "--json")[1])
    assert (told["excluded"], told["added"]) == ({}, 2)
