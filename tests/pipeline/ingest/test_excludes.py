"""Excludes: git's patterns as git has them, each folder's own file, usual ones, and that hostile ones cost little."""

import os
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from trivium.encoders.base import DecodeError
from trivium.pipeline.ingest import excludes
from trivium.pipeline.ingest.excludes import Excludes, Pattern, PatternError, given_patterns, read_ignore_file
from trivium.pipeline.ingest.scanning import Scan, scan_media

NAMES = ["a", "b", "ab", "a.jpg", "b.jpg", "x.png", "raw", "old"]
LINES = [
    *("a", "*.jpg", "/a", "raw/", "!a.jpg", "!*.jpg", "raw/*", "/raw/old", "**/old", "old/**", "a/**/b", "?", "[ab]"),
    *("[!a]*", "*/", "!*/", "*", "!raw", "/*", "a*b", "*a*", "# comment", "", "\\#recycle", "raw/a.jpg", "!raw/a.jpg"),
    *("**", "**/", "*.p?g", "a*.*g", "!/b", "/**/x.png", "b/old/"),
]


def scanned(root: Path, *, exclude: Sequence[str] = (), defaults: bool = True) -> Scan:
    excludes = Excludes.of_root(str(root), given_patterns(exclude), defaults=defaults)
    return scan_media([str(root)], excludes={str(root): excludes})


def taken(root: Path, *, exclude: Sequence[str] = (), defaults: bool = True) -> set[str]:
    files = scanned(root, exclude=exclude, defaults=defaults).files
    return {os.path.relpath(file.path, root) for file in files}


def tree(folder: Path, rng: random.Random, depth: int = 3) -> None:
    folder.mkdir(exist_ok=True)
    for name in rng.sample(NAMES, rng.randint(2, 5)):
        if "." not in name and depth:
            tree(folder / name, rng, depth - 1)
        else:
            (folder / f"{name}{'' if '.' in name else '.png'}").write_bytes(b"x")


@pytest.mark.parametrize("seed", range(25))
def test_as_git_has_it(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    root = tmp_path / "media"
    tree(root, rng)
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in rng.sample(folders, min(3, len(folders))):
        lines = "\n".join(rng.sample(LINES, rng.randint(1, 5)))
        for name in (".triviumignore", ".gitignore"):
            (folder / name).write_text(lines)
    git = ["git", "-c", "core.excludesFile=/dev/null", "-C", str(root)]
    subprocess.run([*git, "init", "-q"], check=True)
    told = subprocess.run(
        [*git, "ls-files", "-z", "--others", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    # A folder's file that leaves out all leaves itself out too.
    expected = {name for name in told.stdout.split("\0") if name and not name.endswith("ignore")}
    assert taken(root) == expected


def test_a_deeper_file_overrides_and_options_are_stronger(tmp_path: Path) -> None:
    for name in ("keep/a.jpg", "keep/b.jpg", "drop/a.jpg", "drop/node_modules/x.png", "c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".triviumignore").write_text("*.jpg\n")
    (tmp_path / "keep" / ".triviumignore").write_text("!a.jpg\n")
    assert taken(tmp_path) == {"keep/a.jpg"}
    assert taken(tmp_path, exclude=["!c.jpg"]) == {"keep/a.jpg", "c.jpg"}
    assert taken(tmp_path, exclude=["keep"]) == set()
    (tmp_path / "drop" / ".triviumignore").write_text("!node_modules\n")  # weaker are only the usual ones
    assert taken(tmp_path) == {"keep/a.jpg", "drop/node_modules/x.png"}


DEFAULT_NAMES = [
    *("@eaDir/a.jpg", "#recycle/a.jpg", ".Trash-1000/a.jpg", ".Trashes/a.jpg", "$RECYCLE.BIN/a.jpg"),
    *("System Volume Information/a.jpg", "Catalog.lrdata/a.jpg", "node_modules/p/a.jpg", ".git/a.jpg"),
    *("__MACOSX/a.jpg", "._a.jpg", ".hidden.jpg", "deep/@eaDir/a.jpg", "Previews.LRDATA/a.jpg"),
]


@pytest.mark.parametrize("name", DEFAULT_NAMES)
def test_what_everybody_wants_left_out(name: str, tmp_path: Path) -> None:
    for path in (tmp_path / name, tmp_path / "photo.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    scan = scanned(tmp_path)
    assert [os.path.basename(file.path) for file in scan.files] == ["photo.jpg"]
    ((_, pattern),) = scan.excluded.items()
    assert scan.excluded_by(str(tmp_path / name)) == pattern
    assert scan.excluded_by(str(tmp_path / "photo.jpg")) is None
    assert taken(tmp_path, defaults=False) == {name, "photo.jpg"}


@pytest.mark.parametrize("name", ["Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini"])
def test_files_of_systems_are_told_as_such(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    scan = scanned(tmp_path)
    assert list(scan.excluded) == [str(tmp_path / name)]
    assert not scan.passed
    assert scanned(tmp_path, defaults=False).passed == {os.path.splitext(name)[1]: 1}


def test_what_is_asked_for_by_name_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "node_modules"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    assert taken(tmp_path) == set()
    assert taken(folder) == {"a.jpg"}
    assert [file.path for file in scanned(folder / "a.jpg", exclude=["*.jpg"]).files] == [str(folder / "a.jpg")]


def test_captions_and_sidecars_can_be_left_out(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.txt", "a.json"):
        (tmp_path / name).write_text("{}")
    (file,) = scanned(tmp_path, exclude=["*.txt", "*.json"]).files
    assert (file.caption_path, file.sidecar_path) == (None, None)


def test_case_and_unicode_forms_are_the_same(tmp_path: Path) -> None:
    for name in ("IMG_1.JPG", "Ma\u0308rz.png", "keep.png"):
        (tmp_path / name).write_bytes(b"x")
    assert taken(tmp_path, exclude=["*.jpg", "M\u00e4rz*"]) == {"keep.png"}


def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".triviumignore").write_bytes(b"\xef\xbb\xbfcaf\xe9*\r\n")
    assert taken(tmp_path) == set()


@pytest.mark.parametrize("line", ["", "   ", "# all", "/", "[b-a]"])
def test_an_option_that_is_no_pattern_is_refused(line: str) -> None:
    with pytest.raises(PatternError, match="'"):
        given_patterns([line])


def test_bad_lines_of_a_file_are_told_and_the_others_hold(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / ".triviumignore").write_text("a/**/b/**/c/**/d\n[z-a].png\n*.jpg\n")
    scan = scanned(tmp_path)
    assert scan.files == []
    assert [problem.reason.split(":")[0] for problem in scan.problems] == ["line 1 left out", "line 2 left out"]
    assert {problem.path for problem in scan.problems} == {str(tmp_path / ".triviumignore")}


def test_a_folder_whose_file_cannot_be_read_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / ".triviumignore").write_text("x\n" * 100)
    monkeypatch.setattr(excludes, "MAX_PATTERNS", 99)
    scan = scanned(tmp_path)
    assert scan.files == []
    assert not scan.covers(str(tmp_path / "a.jpg"))  # what is known of it stays
    assert "100 lines, the limit is 99; the folder is not looked at" in scan.problems[0].reason
    with pytest.raises(DecodeError, match="100 lines"):
        read_ignore_file(str(tmp_path / ".triviumignore"))


def test_a_hostile_pattern_costs_little(tmp_path: Path) -> None:
    (tmp_path / ("a" * 240 + ".jpg")).write_bytes(b"x")
    (tmp_path / ".triviumignore").write_text(
        "\n".join(["*a" * 60 + "b", "*" + "?*" * 50 + "b", "**/" + "*a" * 60 + "b"])
    )
    started = time.process_time()
    assert len(scanned(tmp_path).files) == 1
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    ("line", "name", "matches"),
    [
        ("*a*b", "xaxb", True),
        ("*a*b", "ab", True),
        ("*ab*ab", "abxab", True),
        ("*ab*ab", "ab", False),
        ("*ab*b", "abab", True),
        ("a*[0-9]*.jpg", "a12x.jpg", True),
        ("a*[0-9]*.jpg", "ax.jpg", False),
    ],
)
def test_stars(line: str, name: str, matches: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with os.scandir(tmp_path) as listing:
        (entry,) = listing
    found = Excludes.of_root(str(tmp_path), given_patterns([line]), defaults=False).pattern_of(entry)
    assert found == (line if matches else None)


def test_blank_lines_and_comments_are_no_patterns() -> None:
    assert Pattern.parse("") is Pattern.parse("# x") is None
