"""One text query as a whole process, from the command to the hits: ours against rclip's, over the same photos.

Nothing is loaded beforehand but the files' pages in the system's cache: both programs and models have been used before.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from encoding_checkpoints import RCLIP_MODEL, checkpoint
from encoding_media import captions, photos
from encoding_process import Run, run_whole
from encoding_programs import RCLIP, as_folders, rclip_index, rclip_query
from index_process import spread

PHOTOS = 48
Query = Callable[[str], tuple[Run, list[str]]]


def compare_queries(*, pairs: int) -> None:
    """Print what queries cost: with rclip's model, with the default space, and rclip's."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, _ = as_folders(str(photos(500, 375, 256)), PHOTOS, Path(scratch))
        asked: dict[str, Query] = {
            f"trivium, {RCLIP_MODEL}": _indexed(
                folder, Path(scratch) / "clip", f"open-clip:{RCLIP_MODEL}/{checkpoint(RCLIP_MODEL)}"
            ),
            "trivium, its default space": _indexed(folder, Path(scratch) / "default"),
        }
        if RCLIP:
            rclip_index(folder)
            asked[f"rclip, {RCLIP_MODEL}"] = lambda text: rclip_query(folder, text)
        runs: dict[str, list[Run]] = {name: [] for name in asked}
        hits: dict[str, list[list[str]]] = {name: [] for name in asked}
        for text in islice(captions(), pairs + 1):
            for name, ask in asked.items():
                run, found = ask(text)
                runs[name].append(run)
                hits[name].append(found)
    print("\n| one text query, whole process | seconds | CPU seconds | peak MiB |\n|---|---|---|---|")
    for name, (_, *counted) in runs.items():  # the first has brought the pages in
        seconds, cpu = spread([run.seconds for run in counted]), spread([run.cpu for run in counted])
        print(f"| {name} | {seconds} | {cpu} | {max(run.peak_mib for run in counted):.0f} |")
    if RCLIP:
        ours, _, theirs = hits.values()
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        print(f"\nThe same three hits in the same order, {RCLIP_MODEL}: {same} of {len(ours)} queries.", flush=True)


def _indexed(folder: Path, collection: Path, space: str | None = None) -> Query:
    trivium = [sys.executable, "-P", "-m", "trivium"]
    wish = [] if space is None else ["--space", space]
    run_whole([*trivium, "index", str(collection), str(folder), *wish], folder=folder)

    def ask(text: str) -> tuple[Run, list[str]]:
        run, printed = run_whole([*trivium, "search", str(collection), text, "-k", "3", "--json"], folder=folder)
        return run, [Path(hit["path"]).name for hit in json.loads(printed)["hits"]]

    return ask
