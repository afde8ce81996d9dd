"""Finding media: which file beside another is its caption, and which its sidecar."""

from pathlib import Path

import pytest

from trivium.pipeline.ingest.scanning import Scan, scan_media


def laid(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def beside(scan: Scan) -> dict[str, tuple[str | None, str | None]]:
    def name(path: str | None) -> str | None:
        return None if path is None else Path(path).name

    return {Path(file.path).name: (name(file.caption_path), name(file.sidecar_path)) for file in scan.files}


def by_folder_and_by_name(folder: Path) -> dict[str, tuple[str | None, str | None]]:
    """What lies beside files, whether their folder is walked or each is named; captions are refused where named."""
    walked = beside(scan_media([str(folder)]))
    assert beside(scan_media([str(folder / name) for name in walked])) == walked
    return walked


def test_a_caption_has_the_whole_name_or_the_stem(tmp_path: Path) -> None:
    media = laid(
        tmp_path / "m", "a.jpg", "a.jpg.txt", "b.jpg", "b.txt", "c.mp4", "c.mp4.TXT", "d.wav", "d.TXT", "e.txt"
    )
    assert by_folder_and_by_name(media) == {
        "a.jpg": ("a.jpg.txt", None),
        "b.jpg": ("b.txt", None),
        "c.mp4": ("c.mp4.TXT", None),
        "d.wav": ("d.TXT", None),
        "e.txt": (None, None),
    }
    (problem,) = scan_media([str(media / "a.jpg.txt")]).problems
    assert problem.reason == "the caption of a.jpg: name that file"


def test_a_text_that_is_nobodys_caption_is_an_item(tmp_path: Path) -> None:
    """Of two that could be, the longer name is; the other is not dropped."""
    media = laid(tmp_path / "m", "a.jpg", "a.jpg.txt", "a.txt", "b.png.txt", "n.md", "n.txt", "n.md.txt")
    assert by_folder_and_by_name(media) == {
        "a.jpg": ("a.jpg.txt", None),
        "a.txt": (None, None),
        "b.png.txt": (None, None),
        "n.md": (None, None),
        "n.txt": (None, None),
        "n.md.txt": (None, None),
    }


def test_one_caption_of_two(tmp_path: Path) -> None:
    media = laid(tmp_path / "m", "a.jpg", "a.png", "a.txt", "a.png.txt")
    assert by_folder_and_by_name(media) == {"a.jpg": ("a.txt", None), "a.png": ("a.png.txt", None)}


LONG = "Screenshot_2019-01-01-12-00-00-123_com.whatsapp.app"  # 51 characters


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [
        ("IMG.jpg", "IMG.jpg.json"),
        ("IMG.jpg", "IMG.json"),
        ("IMG.jpg", "IMG.jpg.supplemental-metadata.json"),
        ("PXL_20230401_123456789.PORTRAIT.jpg", "PXL_20230401_123456789.PORTRAIT.jpg.supplement.json"),
        ("IMG_20200101_101010_BURST001_COVER_TOP.jpg", "IMG_20200101_101010_BURST001_COVER_TOP.jpg.sup.json"),
        ("IMG_20200101_101010_BURST001_COVER_TOP2.jpg", "IMG_20200101_101010_BURST001_COVER_TOP2.jpg.s.json"),
        ("IMG_20200101_101010_BURST001_COVER_TOP22.jpg", "IMG_20200101_101010_BURST001_COVER_TOP22.jpg..json"),
        ("IMG(1).jpg", "IMG.jpg.supplemental-metadata(1).json"),
        ("IMG(12).jpg", "IMG.jpg.suppl(12).json"),
        ("IMG(1).jpg", "IMG.jpg(1).json"),
        ("IMG(1).jpg", "IMG(1).jpg.json"),
        (f"{LONG}.jpg", f"{LONG[:46]}.json"),
        (f"{LONG}.jpg", f"{LONG}.json"),
        (f"{LONG}(2).jpg", f"{LONG[:46]}(2).json"),
        ("IMG.MP4", "IMG.MP4.supplemental-metadata.json"),
    ],
)
def test_sidecars_of_google_takeout(tmp_path: Path, name: str, sidecar: str) -> None:
    media = laid(tmp_path / "m", name, sidecar, "other.jpg")
    assert by_folder_and_by_name(media) == {name: (None, sidecar), "other.jpg": (None, None)}
    assert scan_media([str(media)]).passed.total() == 0


def test_a_sidecar_is_of_its_own_picture_only(tmp_path: Path) -> None:
    names = ["IMG.jpg", "IMG(1).jpg", "IMG(2).jpg"]
    sidecars = ["IMG.jpg.supplemental-metadata.json", "IMG.jpg.supplemental-metadata(1).json", "IMG.jpg.sunset.json"]
    assert by_folder_and_by_name(laid(tmp_path / "m", *names, *sidecars)) == {
        "IMG.jpg": (None, sidecars[0]),
        "IMG(1).jpg": (None, sidecars[1]),
        "IMG(2).jpg": (None, None),
    }
    assert scan_media([str(tmp_path / "m")]).passed.total() == 1
    # Cut so far that it could be of either; but a film of the same moment has the same name.
    two = laid(tmp_path / "two", f"{LONG}1.jpg", f"{LONG}2.jpg", f"{LONG[:46]}.json")
    assert {sidecar for _, sidecar in by_folder_and_by_name(two).values()} == {None}
    both = laid(tmp_path / "both", f"{LONG}.HEIC", f"{LONG}.MP4", f"{LONG[:46]}.json")
    assert {sidecar for _, sidecar in by_folder_and_by_name(both).values()} == {f"{LONG[:46]}.json"}
