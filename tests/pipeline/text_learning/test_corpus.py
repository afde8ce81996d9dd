"""Texts from files, folders and tables."""

from pathlib import Path

import pytest

from trivium.pipeline.text_learning.corpus import CorpusError, read_corpus, read_labelled


def test_texts_come_from_files_folders_and_tables(tmp_path: Path) -> None:
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / "a.txt").write_text("first")
    (tmp_path / "notes" / "deep" / "b.md").write_text("second")
    (tmp_path / "notes" / "photo.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "notes" / "empty.txt").write_text(" ")
    (tmp_path / "t.csv").write_text("review,text,image\nfirst,wrong,nowhere.jpg\nthird,wrong,nowhere.jpg\n")
    sources = [tmp_path / "notes", tmp_path / "t.csv"]
    found = read_corpus(sources, columns={"text": "review"}, where={})
    assert found.texts == ["first", "second", "third"]  # each once
    assert len(found.left_out) == 1
    assert "empty.txt" in found.left_out[0]
    assert read_corpus([tmp_path / "notes" / "a.txt"], columns={}, where={}).texts == ["first"]


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" ")
    with pytest.raises(CorpusError, match=r"no texts in .*a\.txt: .*empty"):
        read_corpus([tmp_path / "a.txt"], columns={}, where={})


def test_labelled_texts(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\ngood,1\nlost,\nbad,0\n")
    found = read_labelled(str(tmp_path / "t.csv"), columns={}, where={})
    assert (found.texts, found.labels) == (["good", "bad"], ["1", "0"])
    with pytest.raises(CorpusError, match="no row with a text and a label"):
        read_labelled(str(tmp_path / "t.csv"), columns={"label": ""}, where={})
