import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from base.clipart import clipart, is_english
from base.copies import HeldOut
from base.drawings import cut_out
from base.soundfont import caption_of, instruments
from base.stamps import stamps
from base.table import Row
from base.wordnet import chain_of, everyday_texts, read_counts, read_nouns
from trivium.encoders.base import DecodeError

LEXICON = {"pill", "jar", "bottle", "red", "medicine", "flower", "science"}


def svg(body: str, *, title: str = "", description: str = "", keywords: tuple[str, ...] = ()) -> str:
    items = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" viewBox="0 0 100 100"><metadata>'
        f"<dc:title>{title}</dc:title><dc:description>{description}</dc:description>"
        f"<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject><dc:creator><dc:title>Ann Flower</dc:title></dc:creator>"
        f"</metadata>{body}</svg>"
    )


FULL = '<rect width="100" height="100" fill="red"/>'
SMALL = '<rect x="10" y="10" width="10" height="20" fill="red"/>'


def test_clipart_says_what_its_metadata_say(tmp_path: Path):
    root = tmp_path / "p/usr/share/openclipart/svg"
    drawings = {
        "science/medicine/a.svg": svg(
            FULL, title="Pill Jar 2", description="A jar (old)", keywords=("hash(0x1)", "red")
        ),
        "science/barattolo.svg": svg(FULL, title="Barattolo di pillole"),
        "science/red_bottle_ann_flower_01.svg": svg(FULL, title="Clipart by Ann"),
        "shapes/stars/star.svg": svg(FULL, title="red flower"),
        "science/damaged.svg": "<svg",
        "science/empty.svg": svg("", title="red flower"),
    }
    for name, content in drawings.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    rows = clipart(tmp_path / "p", tmp_path, lexicon=LEXICON)
    assert [(Path(row.image).name, row.text) for row in rows] == [
        ("a.svg", "Pill Jar"),
        ("a.svg", "A jar"),
        ("a.svg", "pill jar, red, medicine, science"),
        ("red_bottle_ann_flower_01.svg", "red bottle"),
        ("red_bottle_ann_flower_01.svg", "red bottle, science"),
    ]
    assert {row.label for row in rows} == {"pill jar", "red bottle"}


def test_english():
    assert is_english("the red flowers", LEXICON)
    assert not is_english("fiore rosso", LEXICON)
    assert not is_english("of the", LEXICON)


def test_a_small_figure_is_cut_out_and_a_large_one_left():
    assert cut_out(svg(FULL).encode()) is None
    figure = cut_out(svg(SMALL).encode())
    assert figure is not None
    # 1 to 2, and as large as if it filled the sheet, with a margin.
    assert figure.height == pytest.approx(448 * 1.1, abs=10)
    assert figure.width == pytest.approx(448 * 0.6, abs=10)
    with pytest.raises(DecodeError, match="empty"):
        cut_out(svg("").encode())


def test_copies_of_what_is_held_out_are_found(tmp_path: Path):
    for name, size, shape in (("held", 100, "pieslice"), ("copy", 160, "pieslice"), ("other", 100, "rectangle")):
        picture = Image.new("RGB", (size, size), "white")
        box = (size // 5, size // 10, size * 4 // 5, size * 9 // 10)
        draw = ImageDraw.Draw(picture)
        draw.pieslice(box, 30, 280, fill="navy") if shape == "pieslice" else draw.rectangle(
            box, fill="navy", outline="red"
        )
        picture.save(tmp_path / f"{name}.png")
    rows = [Row(text=name, image=f"{name}.png", label=name, source="s") for name in ("copy", "other")]
    rows.append(Row(text="sound", audio="a.ogg", label="sound", source="s"))
    held = HeldOut([Row(text="held", image="held.png", label="held", source="s", split="test")], tmp_path)
    assert held.without_copies(rows) == rows[1:]
    assert HeldOut([], tmp_path).without_copies(rows) == rows


def test_stamps_keep_caption_picture_and_sound_together(tmp_path: Path):
    root = tmp_path / "p/stamps/birds"
    root.mkdir(parents=True)
    for name, content in {
        "owl.txt": "An owl.\nde.utf8=Eule\n",
        "owl.svg": "<svg/>",
        "owl.ogg": "x",
        "no.txt": "No.",
    }.items():
        (root / name).write_text(content)
    (row,) = stamps(tmp_path / "p", tmp_path, root="stamps")
    assert (row.text, row.label) == ("An owl.", "owl")
    assert row.image.endswith("birds/owl.svg")
    assert (tmp_path / row.audio).read_text() == "x"


def sound_font(samples: dict[str, tuple[list[int], bool, int]]) -> bytes:
    """Write a sound font's samples: name -> values, whether all of it is looped, key."""
    pcm, headers = b"", b""
    for name, (values, looped, key) in samples.items():
        start = len(pcm) // 2
        end = start + len(values)
        pcm += struct.pack(f"<{len(values)}h", *values)
        loop = (start, end) if looped else (start, start)
        headers += struct.pack("<20sIIIIIBbHH", name.encode(), start, end, *loop, 100, key, 0, 0, 1)
    headers += bytes(46)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content

    lists = chunk(b"LIST", b"sdta" + chunk(b"smpl", pcm)) + chunk(b"LIST", b"pdta" + chunk(b"shdr", headers))
    return b"RIFF" + struct.pack("<I", len(lists) + 4) + b"sfbk" + lists


def test_notes_of_an_instrument_are_held_by_their_loop(tmp_path: Path):
    font = tmp_path / "usr/share/sounds/sf2/FluidR3_GM.sf2"
    font.parent.mkdir(parents=True)
    samples = {
        "Violin C4(L)": ([1000] * 50, True, 60),
        "Violin C4(R)": ([9] * 50, True, 60),
        "Gun": ([5] * 40, False, 60),
    }
    font.write_bytes(sound_font({**samples, "EOS7": ([1], False, 0)}))
    rows = {row.text: row for row in instruments(tmp_path, tmp_path)}
    assert set(rows) == {"a violin", "a gunshot"}
    with wave.open(str(tmp_path / rows["a violin"].audio)) as file:
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert (len(values), values[0], values[-1]) == (250, 1000, 0)
    with wave.open(str(tmp_path / rows["a gunshot"].audio)) as file:
        assert file.getnframes() == 40


@pytest.mark.parametrize(
    ("name", "caption"),
    [("Violin B6(R)", "a violin"), ("Viola E3(R)", "a viola"), ("Acoustic Bass F3", "a double bass"), ("Chiff", "")],
)
def test_instrument_of_a_sample(name: str, caption: str):
    assert caption_of(name) == caption


def test_nouns_with_what_they_are_kinds_of(tmp_path: Path):
    lines = [
        "  1 a licence",
        "00000001 03 n 01 entity 0 000 | that which is",
        '00000002 05 n 02 dog 0 domestic_dog 1 002 @ 00000001 n 0000 ~ 00000003 n 0000 | a pet; "the dog barked"',
        "00000003 05 n 01 Rex 0 001 @i 00000002 n 0000 | a dog by name",
    ]
    (tmp_path / "data.noun").write_text("\n".join(lines) + "\n")
    (tmp_path / "cntlist.rev").write_text("dog%1:05:00:: 1 42\ndomestic_dog%1:05:01:: 2 3\ndog%2:38:00:: 1 9\n")
    nouns = read_nouns(tmp_path)
    assert chain_of(nouns["00000003"], nouns) == ["dog", "entity"]
    (row,) = everyday_texts(nouns, read_counts(tmp_path))
    assert row == {
        "synset": "n00000002",
        "kind": "animal",
        "count": "45",
        "lemmas": "dog; domestic dog",
        "gloss": "a pet",
        "hypernyms": "entity",
    }
