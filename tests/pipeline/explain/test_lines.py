"""Explanations as lines and as JSON."""

import json

import numpy as np
import pytest

from trivium.pipeline.explain.drops import Explanation, Mark
from trivium.pipeline.explain.lines import explanation_json, lines_of

DOG = Mark(start=2, stop=5, drop=0.2149, text="dog")
A = Mark(start=0, stop=1, drop=-0.01, text="a")
BEACH = Mark(start=10, stop=15, drop=0.08, text="the\nbeach")
FAINT = Mark(start=6, stop=9, drop=0.01, text="on")
PICTURE = Mark(start=0, stop=0, drop=0.5, part=1)
SECONDS = (Mark(start=0, stop=1.5, drop=0.1), Mark(start=1.5, stop=3, drop=0.3), Mark(start=3, stop=3, drop=0.2))


@pytest.mark.parametrize(
    ("explanation", "lines"),
    [
        (Explanation(reason="the file is gone"), ["not explained: the file is gone"]),
        (Explanation(query=(A, DOG, FAINT, BEACH)), ["query: dog +0.21, the beach +0.08"]),
        (Explanation(query=(DOG,)), []),  # a query of one word: that goes without saying
        (Explanation(query=(DOG, PICTURE)), ["query: part 2 +0.50, dog +0.21"]),
        (Explanation(query=(A, A)), []),  # nothing held it up
        (Explanation(words=(A, DOG)), ["words: dog +0.21"]),
        (Explanation(seconds=SECONDS), ["seconds: 1.5–3.0 +0.30, 3.0 +0.20, 0.0–1.5 +0.10"]),
        (Explanation(words=(DOG,) * 5), ["words: dog +0.21, dog +0.21, dog +0.21"]),
        (Explanation(regions=np.ones((2, 2), np.float32)), []),
    ],
)
def test_lines(explanation: Explanation, lines: list[str]) -> None:
    assert lines_of(explanation) == lines


def test_json_has_all_of_what_there_is() -> None:
    told = explanation_json(Explanation(score=0.5, query=(A, PICTURE), words=(DOG,)))
    assert told == {
        "score": 0.5,
        "query": [
            {"part": 0, "start": 0, "stop": 1, "text": "a", "drop": -0.01},
            {"part": 1, "start": 0, "stop": 0, "drop": 0.5},
        ],
        "words": [{"start": 2, "stop": 5, "text": "dog", "drop": 0.2149}],
    }
    told = explanation_json(Explanation(seconds=SECONDS[:1], regions=np.array([[0.25, -1]], np.float32), overlay="o"))
    assert told == {
        **{"score": 0.0, "query": [], "seconds": [{"start": 0, "stop": 1.5, "drop": 0.1}]},
        **{"regions": [[0.25, -1.0]], "overlay": "o"},
    }
    assert json.loads(json.dumps(told)) == told
    assert explanation_json(Explanation(reason="the file is gone")) == {"reason": "the file is gone"}
