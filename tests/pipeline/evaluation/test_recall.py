"""Any-to-any retrieval over a table: galleries, what is right, what is refused, and the figures."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.pipeline.evaluation import recall
from trivium.pipeline.evaluation.judgements import judge
from trivium.pipeline.evaluation.recall import evaluate, sample_rows
from trivium.pipeline.tables.pairs import RefusedRow, Row, TableError

# Pictures a and b, two captions each; "b1" is nearer to a than to b.
VECTORS = {
    "a": [1, 0, 0],
    "b": [0, 1, 0],
    "c": [0, 0, 1],
    "a1": [0.9, 0.1, 0.2],
    "a2": [0.8, 0.3, 0],
    "b1": [0.7, 0.6, 0],
    "b2": [0, 1, 0.1],
}
ROWS = [
    {"image": "/m/a.jpg", "text": "a1"},
    {"image": "/m/a.jpg", "text": "a2"},
    {"image": "/m/b.jpg", "text": "b1"},
    {"image": "/m/b.jpg", "text": "b2"},
    {"image": "/m/c.jpg"},
]


def test_captions_and_pictures(chosen, pair_table) -> None:
    found = evaluate(chosen(VECTORS), pair_table(*ROWS))
    assert found.galleries == {"text": 4, "image": 3}
    assert set(found.recall) == {("text", "image"), ("image", "text"), ("text", "text")}
    forth = found.recall["text", "image"]
    assert (forth.queries, forth.gallery) == (4, 3)  # c stands in the way, and is asked for by nothing
    assert forth.at == {1: 0.75, 5: 1.0, 10: 1.0}
    assert forth.mrr == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert forth.median_rank == 1
    assert set(forth.interval) == {"R@1", "R@5", "R@10", "MRR"}
    low, high = forth.interval["R@1"]
    assert 0 <= low < 0.75 < high <= 1
    back = found.recall["image", "text"]
    assert (back.queries, back.gallery, back.at[1]) == (2, 4, 1.0)  # by any of its captions
    # a1 finds a2, a2 finds a1; b1 finds a2, a1 before b2; b2 finds b1
    within = found.recall["text", "text"]
    assert (within.queries, within.gallery, within.at[1]) == (4, 4, 0.75)
    assert within.mrr == pytest.approx((1 + 1 + 1 / 3 + 1) / 4)
    assert (found.ndcg, found.calibration, found.refused, found.rows) == ({}, {}, [], 5)
    assert (found.space.name, found.table) == ("chosen", Path("/data/pairs.csv"))


def test_queries_that_all_agree_do_not_make_it_certain(chosen, pair_table) -> None:
    found = evaluate(chosen(VECTORS), pair_table(ROWS[0], ROWS[3])).recall["text", "image"]
    assert found.at[1] == 1
    low, high = found.interval["R@1"]
    assert low == pytest.approx(0.342, abs=1e-3)  # Wilson's for 2 of 2
    assert high == pytest.approx(1)


def test_each_content_is_encoded_once(chosen, pair_table) -> None:
    space = chosen(VECTORS)
    evaluate(space, pair_table(*ROWS, *ROWS))
    assert sorted(space.encoded) == sorted(
        [*(("text", text) for text in ("a1", "a2", "b1", "b2")), *(("image", f"/m/{name}.jpg") for name in "abc")]
    )


def test_the_table_may_be_in_any_order(chosen, pair_table) -> None:
    forth, back = (evaluate(chosen(VECTORS), pair_table(*rows)).recall for rows in (ROWS, ROWS[::-1]))
    assert forth.keys() == back.keys()
    for pair, figures in forth.items():
        assert figures.at == back[pair].at
        assert figures.mrr == pytest.approx(back[pair].mrr)
        assert figures.interval == back[pair].interval


def test_bad_media_cost_their_rows(chosen, pair_table) -> None:
    """A picture that cannot be decoded takes its captions out of the gallery too; nothing else changes."""
    bad = [{"image": "/m/broken.jpg", "text": "b1"}, {"image": "/m/broken.jpg", "text": "unknown"}]
    found = evaluate(chosen(VECTORS), pair_table(bad[0], *ROWS[:2], *ROWS[3:], bad[1]))
    assert found.refused == [
        RefusedRow(line=2, reason="/m/broken.jpg: no image"),
        RefusedRow(line=7, reason="its text: no text"),
    ]
    assert found.galleries == {"text": 3, "image": 3}
    assert found.recall["text", "image"].at[1] == 1


def test_vectors_that_are_not_finite(chosen, pair_table) -> None:
    space = chosen({**VECTORS, "b2": [np.nan, 0, 0]})
    found = evaluate(space, pair_table(*ROWS))
    assert found.refused == [RefusedRow(line=5, reason="its text: the network gave no finite vector for it")]


def test_three_modalities(chosen, pair_table) -> None:
    rows = [
        {"image": "/m/a.jpg", "text": "a1", "audio": "/s/a.ogg"},
        {"image": "/m/b.jpg", "text": "b2", "audio": "/s/b.ogg"},
        {"image": "/m/c.jpg", "text": "b1"},
    ]
    found = evaluate(chosen(VECTORS), pair_table(*rows))
    assert set(found.recall) == {
        *(("text", "image"), ("image", "text"), ("text", "audio"), ("audio", "text"), ("image", "audio")),
        ("audio", "image"),
    }
    assert found.recall["image", "audio"].queries == 2
    assert found.recall["audio", "image"].at[1] == 1


def test_a_modality_that_the_space_lacks(chosen, pair_table) -> None:
    rows = [{"image": "/m/a.jpg", "text": "a1", "audio": "/s/broken.ogg"}, {"image": "/m/b.jpg", "text": "b2"}]
    found = evaluate(chosen(VECTORS, modalities=("text", "image")), pair_table(*rows))
    assert found.galleries == {"text": 2, "image": 2}
    assert found.refused == []
    assert found.protocol[-1] == "left out, because the space has no encoder: audio"


def test_scores(chosen, pair_table) -> None:
    rows = [
        {"text": "a1", "image": "/m/a.jpg", "score": 1},
        {"text": "a1", "image": "/m/b.jpg", "score": 3},
        {"text": "a1", "image": "/m/c.jpg", "score": 0},
        {"text": "b2", "image": "/m/b.jpg", "score": 2},
    ]
    found = evaluate(chosen(VECTORS), pair_table(*rows))
    # a1 finds a (worth 1), c (0), b (3): the best order would be b, a
    gained = (1 + 3 / np.log2(4)) / (3 + 1 / np.log2(3))
    graded = found.ndcg["text", "image"]
    assert graded.at_10 == pytest.approx((gained + 1) / 2)
    assert (graded.queries, graded.gallery) == (2, 3)
    assert ("text", "text") not in found.ndcg
    assert found.recall["text", "image"].at[1] == 1
    assert found.galleries["image"] == 3
    assert "score above 0" in found.protocol[-1]


def test_nothing_to_find(chosen, pair_table) -> None:
    with pytest.raises(TableError, match=r"pairs\.csv: nothing in it belongs together.*read from columns image=image$"):
        evaluate(chosen(VECTORS), pair_table({"image": "/m/a.jpg"}, {"image": "/m/b.jpg"}))
    with pytest.raises(TableError, match=r"0 rows usable, 1 refused, the first in line 2: /m/gone\.jpg: no image"):
        evaluate(chosen(VECTORS), pair_table({"image": "/m/gone.jpg", "text": "a1"}))
    space = chosen(VECTORS, modalities=("text", "image"))
    with pytest.raises(TableError, match="a row needs two of text, image, or rows must share one"):
        evaluate(space, pair_table({"audio": "/s/a.ogg", "text": "a1"}))


def test_blocks_change_nothing(chosen, pair_table, monkeypatch) -> None:
    whole = evaluate(chosen(VECTORS), pair_table(*ROWS))
    monkeypatch.setattr(recall, "BLOCK_SCORES", 5)  # one query at a time
    assert evaluate(chosen(VECTORS), pair_table(*ROWS)) == whole


def test_a_collapsed_space_is_at_chance(chosen, pair_table) -> None:
    rows = [{"image": f"/m/{n}.jpg", "text": f"t{n}"} for n in range(20)]
    space = chosen({f"{kind}{n}": [1, 1] for n in range(20) for kind in ("", "t")})
    found = evaluate(space, pair_table(*rows)).recall["text", "image"]
    assert found.at == pytest.approx({1: 1 / 20, 5: 5 / 20, 10: 10 / 20})
    assert found.median_rank == 10.5


def test_calibration_is_asked_with_the_pair_and_judged(chosen, pair_table) -> None:
    asked, among = set(), set()

    def certain(query, gallery, scores, searched):
        asked.add((query, gallery))
        among.add(searched)
        return np.ones(scores.shape)

    found = evaluate(chosen(VECTORS), pair_table(*ROWS), calibration=certain)
    assert among == {1, 3, 4}  # a pair by itself; pictures; texts
    assert asked == set(found.recall) == set(found.calibration)
    hits = found.calibration["text", "image"]["hits"]
    assert hits.count == 12  # of 4 texts all 3 pictures, of which one is right
    assert hits.ece == pytest.approx(2 / 3)
    assert found.calibration["text", "text"]["hits"].count == 12  # all but itself


def test_limit_draws_pictures_with_all_their_rows(chosen, pair_table) -> None:
    rows = [{"image": f"/m/{n}.jpg", "text": f"t{n}{m}"} for n in range(9) for m in range(2)]
    space = chosen({**{f"t{n}{m}": [n, 1] for n in range(9) for m in range(2)}, **{f"{n}": [n, 1] for n in range(9)}})
    found = evaluate(space, pair_table(*rows), limit=4, seed=1)
    assert found.galleries == {"text": 8, "image": 4}
    assert found.protocol[0] == "at most 4 pictures, drawn with seed 1, with all their rows"
    assert len([item for kind, item in space.encoded if kind == "image"]) == 4


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.sampled_from(["", "x", "y"])), max_size=12),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_sample(pairs: list[tuple[str, str]], limit: int, seed: int) -> None:
    rows = [
        Row(line=n, text=f"t{n}", image=image or None, audio=audio or None) for n, (image, audio) in enumerate(pairs)
    ]
    drawn = sample_rows(rows, limit, seed=seed)
    assert drawn == sample_rows(rows, limit, seed=seed)
    assert drawn == [row for row in rows if row in drawn]  # in order
    keys = [row.image or row.audio or row.text for row in rows]
    kept = {row.image or row.audio or row.text for row in drawn}
    assert len(kept) == min(limit, len(set(keys)))
    assert drawn == [row for row, key in zip(rows, keys, strict=True) if key in kept]


def test_the_seed_draws_others() -> None:
    rows = [Row(line=n, text=f"{n}") for n in range(50)]
    assert sample_rows(rows, 10, seed=0) != sample_rows(rows, 10, seed=1)


@settings(max_examples=40)
@given(st.data())
def test_recall_is_what_comparing_all_gives(reference, chosen, pair_table, data) -> None:
    """Against the slow reference: vectors of quarters, so that scores are exact and tie."""
    numbers = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=2)
    texts = data.draw(st.lists(numbers, min_size=1, max_size=4))
    images = data.draw(st.lists(numbers, min_size=1, max_size=4))
    edges = data.draw(
        st.lists(st.tuples(st.integers(0, len(texts) - 1), st.integers(0, len(images) - 1)), min_size=1, max_size=6)
    )
    vectors = {f"t{n}": v for n, v in enumerate(texts)} | {f"i{n}": v for n, v in enumerate(images)}
    rows = [{"text": f"t{a}", "image": f"/m/i{b}.png"} for a, b in edges]
    space = chosen(vectors)
    found = evaluate(space, pair_table(*rows)).recall["text", "image"]
    judged = judge(pair_table(*rows).rows)
    slow = reference("retrieval_figures")
    first = []
    gallery = space.encode("image", judged.items["image"])
    for text in judged.items["text"]:
        scores = (gallery @ space.encode("text", [text])[0]).round(4).tolist()
        right = {judged.items["image"].index(row["image"]) for row in rows if row["text"] == text}
        first.append((slow.found_within(scores, right, 1), slow.expected_rank(scores, right)))
    assert found.at[1] == pytest.approx(np.mean([hit for hit, _ in first]))
    assert found.mrr == pytest.approx(np.mean([1 / rank for _, rank in first]))
    assert found.median_rank == pytest.approx(np.median([rank for _, rank in first]))
