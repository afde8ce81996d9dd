"""Queries as words: how those of a command line are read, and how a typed line is cut into parts and options."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.pipeline.cli.main import parse
from trivium.pipeline.cli.options import UsageError
from trivium.pipeline.cli.query_words import Word, name_texts, parse_line, split_words


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("a bird singing", ["a bird singing"]),
        ("  a   bird\t", ["a bird"]),
        ("it's a bird's nest", ["it's a bird's nest"]),
        ("'tis the bird's season", ["'tis the bird's season"]),
        ("'a bird' singing", ["a bird", "singing"]),
        ('2:beach "at night" -crowd of people', ["2:beach", "at night", "-crowd of people"]),
        ('2:"sunny beach" sunset', ["2:sunny beach sunset"]),
        ('"2:beach"', ["2:beach"]),
        ("beach 0.5:sunset .5:sea +2:sky -1:rain", ["beach", "0.5:sunset", ".5:sea", "+2:sky", "-1:rain"]),
        ("a train at 10:30 in 16:9", ["a train at 10:30 in 16:9"]),
        ("10:30 train", ["10:30 train"]),  # as in `trivium search`: a weight of 10
        ("state-of-the-art", ["state-of-the-art"]),
        (r"a \"quote\" and \\", ['a "quote" and \\']),
        (r'"a \"quote\" \x and \\"', [r'a "quote" \x and ' + "\\"]),
        ('""', [""]),
        ("text:--only", ["--only"]),
        ('text:"image:red.png"', ["image:red.png"]),
        ('"image:red.png"', ["image:red.png"]),
        ("caf\u00e9 \udcff", ["caf\u00e9 \udcff"]),
    ],
)
def test_texts(line: str, texts: list[str]) -> None:
    assert parse_line(line).text == texts


@pytest.mark.parametrize(
    ("line", "image", "audio"),
    [
        ("image:red.png", ["red.png"], []),
        ("image: red.png", ["red.png"], []),
        ('image:"two words.png" audio:low.wav', ["two words.png"], ["low.wav"]),
        ("-image:dull.png 0.5:audio:low.wav", ["-dull.png"], ["0.5:low.wav"]),
        ("image:-dull.png image:0.5:red.png", ["-dull.png", "0.5:red.png"], []),
        ("--image red.png --audio=low.wav", ["red.png"], ["low.wav"]),
        ("--image -dull.png", ["-dull.png"], []),
    ],
)
def test_files(line: str, image: list[str], audio: list[str]) -> None:
    options = parse_line(line)
    assert (options.text, options.image, options.audio) == ([], image, audio)


def test_home_is_written_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options = parse_line("image:~/a.png image:-~/b.png 2:image:~/c.png text:~/d")
    assert options.image == [str(tmp_path / "a.png"), f"-{tmp_path / 'b.png'}", f"2:{tmp_path / 'c.png'}"]
    assert options.text == ["~/d"]


def test_options_stand_anywhere() -> None:
    options = parse_line("a bird --only audio singing -k 3 --where 'year > 3' --path a --path=b --json --html o.html")
    assert options.text == ["a bird", "singing"]
    assert (options.only, options.k, options.where, options.path) == ("audio", 3, ["year > 3"], ["a", "b"])
    assert (options.json, options.html) == (True, "o.html")
    assert parse_line("-k5 x").k == 5
    assert parse_line("x").k is None  # as before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('a "bird', "does not end"),
        ('a "bird" "s', "does not end"),
        ("a bird\\", "does not end"),
        ('"a"b"', "does not end"),
        ("x --nonsense", "unrecognized arguments: --nonsense"),
        ("x --onl audio", "unrecognized arguments: --onl"),
        ("x --device cpu", "unrecognized arguments: --device=cpu"),
        ("x --only song", "invalid choice: 'song'"),
        ("x --only", "expected one argument"),
        ("x -k 0", "at least 1, got '0'"),
        ("x -k -3", "at least 1, got '-3'"),
        ("x -k", "expected one argument"),
        ("x -- -y", "means nothing here"),
    ],
)
def test_lines_that_say_nothing_clear(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        parse_line(line)


@given(st.text())
def test_any_line_is_read_or_refused(line: str) -> None:
    try:
        options = parse_line(line)
    except UsageError:
        return
    assert all(isinstance(text, str) for text in options.text)


@given(st.lists(st.text()))
def test_quoted_words_come_back_as_they_are(words: list[str]) -> None:
    escaped = [word.replace("\\", "\\\\").replace('"', '\\"') for word in words]
    assert split_words(" ".join(f'"{word}"' for word in escaped)) == [Word(word, is_quoted=True) for word in words]


@given(st.lists(st.from_regex(r"\w+('\w+)*", fullmatch=True)))
def test_plain_words_come_back_as_they_are(words: list[str]) -> None:
    assert split_words(" ".join(words)) == [Word(word) for word in words]


def test_expansion_is_that_of_python() -> None:
    assert parse_line("image:~nobody-of-this-name/x").image == [os.path.expanduser("~nobody-of-this-name/x")]


@pytest.mark.parametrize(
    ("line", "texts", "folder"),
    [
        ("a bird", ["a bird"], None),
        ("a bird --explain", ["a bird"], "explanations"),
        ("a bird --explain out", ["a bird"], "out"),
        ('a bird --explain "my out" -k 3', ["a bird"], "my out"),
        ("--explain a bird", ["a bird"], "explanations"),
        ("--explain=out a bird", ["a bird"], "out"),
        ("a bird --explain -crowd", ["a bird", "-crowd"], "explanations"),
        ("a bird --explain 2:crowd", ["a bird", "2:crowd"], "explanations"),
        ("a bird --explain --only image", ["a bird"], "explanations"),
    ],
)
def test_explain_may_have_a_folder_after_a_query(line: str, texts: list[str], folder: str | None) -> None:
    options = parse_line(line)
    assert (options.text, options.explain) == (texts, folder)
    assert options.explain_hits == 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["c", "-crowd"], ["c", "--text=-crowd"]),
        (["c", "-king", "-k", "3"], ["c", "--text=-king", "-k", "3"]),
        (["c", "-k5", "x"], ["c", "-k5", "--text=x"]),
        (["c", "-k", "-1", "x"], ["c", "-k", "-1", "--text=x"]),
        (["c", "--image", "-dull.jpg"], ["c", "--image=-dull.jpg"]),
        (["c", "-a", "b", "--only", "image"], ["c", "--text=-a", "--text=b", "--only=image"]),
        (["c", "--only", "image", "b", "--json"], ["c", "--only=image", "--text=b", "--json"]),
        (["--json", "c", "b"], ["--json", "c", "--text=b"]),
        (["-h"], ["-h"]),
        (["c", "--", "-crowd", "--json"], ["c", "--text=-crowd", "--text=--json"]),
        (["c", "--image"], ["c", "--image"]),
    ],
)
def test_leading_dashes_reach_the_query(arguments: list[str], expected: list[str]) -> None:
    assert name_texts(arguments) == expected


@pytest.mark.parametrize(
    ("words", "texts", "folder"),
    [
        (["C", "a dog"], ["a dog"], None),
        (["C", "a dog", "--explain"], ["a dog"], "explanations"),
        (["C", "a dog", "--explain", "out"], ["a dog"], "out"),
        (["C", "--explain", "out", "a dog"], ["a dog"], "out"),
        (["C", "--explain", "out", "--image", "x.jpg"], [], "out"),
        (["C", "--explain", "a dog"], ["a dog"], "explanations"),  # all there is to look for
        (["C", "--explain", "a dog", "--only", "image"], ["a dog"], "explanations"),
        (["--explain", "C", "a dog"], ["a dog"], "explanations"),
        (["C", "--explain=out", "a dog"], ["a dog"], "out"),
        (["C", "a dog", "--explain", "-crowd"], ["a dog", "-crowd"], "explanations"),
        (["C", "a dog", "--explain", "--", "crowd"], ["a dog", "crowd"], "explanations"),
        (["C", "out", "--explain", "out"], ["out"], "out"),
    ],
)
def test_explain_may_have_a_folder(words: list[str], texts: list[str], folder: str | None) -> None:
    name, options = parse(["search", *words])
    assert name == "search"
    assert (options.collection, options.texts + options.text, options.explain) == ("C", texts, folder)
