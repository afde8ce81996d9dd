"""What reading EXIF and XMP costs while photos are indexed: processor time and wall time, with and without, in turns.

    python benchmarks/tags.py [PHOTOS]

Photos of 12 megapixels as a camera and a photo manager leave them: 40 EXIF entries with a maker's note of 20 kB, a
position, and an XMP packet with keywords, rating and faces. Each run indexes all of them into a new collection with the
default space, in a process of its own; its processor time is that of all its processes. The pictures differ: none is a
copy.
"""

import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from PIL import Image

PAIRS = 3
SIZE = (4000, 3000)
XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"
 xmlns:r="http://www.metadataworkinggroup.com/schemas/regions/"
 xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
 {settings}><dc:subject><rdf:Bag>{words}</rdf:Bag></dc:subject>
<r:Regions rdf:parseType="Resource"><r:RegionList><rdf:Bag>
<rdf:li rdf:parseType="Resource"><r:Name>Ann</r:Name><r:Type>Face</r:Type></rdf:li></rdf:Bag></r:RegionList></r:Regions>
</rdf:Description></rdf:RDF></x:xmpmeta>{padding}<?xpacket end="w"?>"""


def main(count: int) -> None:
    print(describe())
    with tempfile.TemporaryDirectory() as root:
        media = Path(root) / "media"
        media.mkdir()
        make_photos(media, count)
        spent: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
        for number in range(PAIRS + 1):
            for how, found in spent.items():
                figures = measured(how, media, Path(root) / f"{how}{number}")
                found += [figures] if number else []  # the first reads the disk and the weights
        for figure in ("processor", "wall"):
            pairs = zip(spent["with"], spent["without"], strict=True)
            ratios = [ours[figure] / theirs[figure] - 1 for ours, theirs in pairs]
            seconds = statistics.median(found[figure] for found in spent["with"])
            print(
                f"{figure}: {seconds:.2f} s for {count:,} photos, {statistics.median(ratios):+.2%} for their tags "
                f"({min(ratios):+.2%} to {max(ratios):+.2%})"
            )
        visits(media)


def measured(how: str, media: Path, collection: Path) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    command = [sys.executable, str(Path(__file__).resolve()), "--index", how, str(media), str(collection)]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert told["has_tags"] == (how == "with"), told
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"processor": used - told["start"], "wall": wall}


def index(how: str, media: str, folder: str) -> None:
    from trivium.pipeline.collection import Collection
    from trivium.pipeline.ingest.loading import Loader

    if how == "without":
        begin = Loader.__init__

        def untold(*parts: Any, **options: Any) -> None:
            begin(*parts, **options | {"reads_tags": False})

        Loader.__init__ = untold  # type: ignore[method-assign]
    with Collection.open(folder) as collection:
        collection.space.encoder("image")
        start = time.process_time()
        summary = collection.add(media)
        assert not summary.skipped, summary.skipped
        keys = collection.metadata_keys()
    print(json.dumps({"start": start, "has_tags": "camera" in keys}))


def visits(media: Path) -> None:
    """Tell what one photo costs, by itself."""
    from trivium.encoders.sandbox.pool import DecodeSandbox
    from trivium.encoders.tags.reading import read_tags

    files = [path.read_bytes() for path in sorted(media.iterdir())[:50]]
    with DecodeSandbox(1) as sandbox:
        for what, work in (
            ("reading its tags", lambda data: read_tags("image", data)),
            ("a visit for its tags alone", lambda data: sandbox.tags("image", data)),
            ("decoding it", lambda data: sandbox.decode("image", data, side=224)),
        ):
            times = []
            for data in files:
                started = time.perf_counter()
                work(data)
                times.append(time.perf_counter() - started)
            print(f"{what}: {1e3 * statistics.median(times):.2f} ms")


def make_photos(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (SIZE[1] // 40, SIZE[0] // 40, 3), dtype=np.uint8)
    scene = np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)).astype(np.int16)
    photo = Image.fromarray((scene + rng.normal(0, 6, scene.shape)).clip(0, 255).astype(np.uint8))
    settings = " ".join(f'crs:Setting{number}="{number}"' for number in range(100))
    words = "".join(f"<rdf:li>word {number}</rdf:li>" for number in range(12))
    packet = XMP.format(settings=settings, words=words, padding=" " * 2000).encode()
    for number in range(count):
        photo.putpixel((0, 0), (number % 256, number // 256 % 256, 0))
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=88, exif=exif(number), xmp=packet)
        (folder / f"{number:05}.jpg").write_bytes(buffer.getvalue())


def exif(number: int) -> bytes:
    made = Image.Exif()
    made[0x010F], made[0x0110], made[0x0131], made[0x0112] = "Canon", "Canon EOS 5D Mark IV", "Firmware 1.0", 1
    made[0x0132] = f"2024:05:01 10:{number // 60 % 60:02}:{number % 60:02}"
    inner = made.get_ifd(0x8769)
    inner[0x9003] = inner[0x9004] = made[0x0132]
    inner[0x9011], inner[0xA434], inner[0x927C] = "+02:00", "EF24-70mm f/2.8L II USM", os.urandom(20_000)
    inner[0x829A], inner[0x829D], inner[0x8827], inner[0x920A], inner[0x9209] = 1 / 250, 2.8, 100, 50.0, 16
    for tag in (0x8822, 0x8830, 0x9207, 0xA001, 0xA217, 0xA401, 0xA402, 0xA403, 0xA405, 0xA406, 0xA408, 0xA409, 0xA40A):
        inner[tag] = 1
    place = made.get_ifd(0x8825)
    place[1], place[2], place[3], place[4] = "N", (48.0, 8.0, 30.0), "E", (11.0, 34.0, 30.0)
    return made.tobytes()


if __name__ == "__main__":
    if "--index" in sys.argv:
        index(*sys.argv[2:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
