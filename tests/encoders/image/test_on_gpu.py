"""What a GPU does of pictures, tried with torch's CPU as the device, against what the processor does."""

import io
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock, call

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor, nn

from assets import ASSETS
from trivium.encoders.base import IMAGE_LAYERS, DecodeError, Prepared, Space, unit_rows
from trivium.encoders.batching import encode
from trivium.encoders.decoding.pictures import decode_image
from trivium.encoders.devices import PLAIN, DeviceError
from trivium.encoders.image import on_gpu
from trivium.encoders.image import on_gpu as device_pictures
from trivium.encoders.image.backbone import ImageBackbone, image_backbone
from trivium.encoders.image.fit import Fit
from trivium.encoders.image.on_gpu import MOST_SQUARES, Decode, DevicePictures, jpeg_decoder, plain_jpeg_size
from trivium.encoders.networks.torch_runtime import TorchNetwork
from trivium.encoders.registry import BACKBONES
from trivium.fusion.projections.plain import IdentityProjection
from trivium.pipeline.space.projections import ProjectedEncoder

# torchvision's own decoder, which torchcodec is to replace.
pytestmark = pytest.mark.filterwarnings("ignore:.*decoding and encoding capabilities of TorchVision:DeprecationWarning")
STRAWBERRY = (ASSETS / "strawberry.jpg").read_bytes()
SIDE = 32
FITS = [
    Fit(side=SIDE, mode="squash"),
    Fit(side=SIDE, mode="shortest"),
    Fit(side=SIDE, mode="longest", is_bilinear=True, fill=90),
]
WIDTH, HEIGHT = 60, 40


class Pixels(nn.Module):
    """The pixels as they come."""

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (pixels.flatten(1).float(),)


def backbone(fit: Fit = FITS[1], *, decode: Decode | None = None) -> ImageBackbone:
    network = TorchNetwork(Pixels(), device=PLAIN)
    pictures = DevicePictures(fit, "cpu", decode=decode)
    return ImageBackbone(network, fit, dim=3 * fit.side**2, heads={}, layers={}, on_device=pictures)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    with Image.open(ASSETS / "strawberry.jpg") as image:
        return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def jpeg(pixels: NDArray[np.uint8], mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def pixels_of(found: NDArray[np.float32]) -> NDArray[np.float32]:
    return found.reshape(len(found), 3, SIDE, SIDE)


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.mode)
def test_whole_pixels_become_the_squares_of_the_cpu(fit: Fit) -> None:
    sizes = [(60, 100), (101, 67), (20, 33), (SIDE, SIDE), (60, 100), (1, 1), (3, 90), (400, 400)]
    whole = [picture(*size) for size in sizes]
    ours = backbone(fit)
    prepared = [ours.prepare_file(pixels) for pixels in whole]
    assert [item.shape for item in prepared[:-1]] == [pixels.shape for pixels in whole[:-1]]
    assert prepared[-1].shape == (3, SIDE, SIDE)  # larger than what may wait
    found = pixels_of(ours.features(prepared).pooled)
    expected = np.stack([ours.prepare(pixels) for pixels in whole])
    np.testing.assert_array_equal(found, expected)


def test_how_much_of_a_picture_waits() -> None:
    """All that scaled decoding leaves of a JPEG of 16:9, and not more."""
    ours = backbone()
    rows = int(MOST_SQUARES**0.5 * SIDE)
    assert ours.prepare_file(picture(rows, rows)).ndim == 3
    assert ours.prepare_file(picture(rows, rows)).shape[2] == 3
    assert ours.prepare_file(picture(rows + 2, rows + 2)).shape == (3, SIDE, SIDE)
    assert 16 / 9 * 4**2 <= MOST_SQUARES


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = backbone(decode=jpeg_decoder("cpu"))
    batch = [
        ours.prepare_file(item) for item in (picture(60, 80), STRAWBERRY, picture(9, 8), STRAWBERRY, picture(7, 7))
    ]
    expected = ours.features(batch).pooled
    sent: list[int] = []
    squares = DevicePictures._squares

    def counted(self: DevicePictures, chunk: Sequence[Prepared]) -> list[Tensor]:
        sent.append(len(chunk))
        return squares(self, chunk)

    monkeypatch.setattr(DevicePictures, "_squares", counted)
    monkeypatch.setattr(device_pictures, "CHUNK_BYTES", 3 * 60 * 80 + 3 * 8 * 9)
    np.testing.assert_array_equal(ours.features(batch).pooled, expected)
    assert sent == [1, 1, 1, 1, 1]
    monkeypatch.setattr(device_pictures, "CHUNK_BYTES", 3 * 200 * 200 + 3 * 60 * 80)
    np.testing.assert_array_equal(ours.features(batch).pooled, expected)
    assert sent[5:] == [2, 3]


@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "L"}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}],
    ids=["RGB", "grey", "progressive", "4:4:4", "4:2:2"],
)
def test_plain_jpegs_are_decoded_on_the_device(options: dict[str, Any]) -> None:
    ours = backbone(decode=jpeg_decoder("cpu"))
    data = jpeg(picture(60, 50), **options)  # too small to be decoded scaled
    assert ours.takes_file(data)
    prepared = ours.prepare_file(data)
    assert prepared.tobytes() == data
    np.testing.assert_array_equal(pixels_of(ours.features([prepared]).pooled)[0], ours.prepare(data))


@pytest.mark.parametrize(
    "data",
    [
        jpeg(picture(60, 50), "CMYK"),
        jpeg(picture(60, 50), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"),
    ],
    ids=["CMYK", "turned"],
)
def test_other_jpegs_go_the_usual_way(data: bytes) -> None:
    ours = backbone(decode=jpeg_decoder("cpu"))
    assert not ours.takes_file(data)
    prepared = ours.prepare_file(data)  # decoded here, as nobody did it before
    np.testing.assert_array_equal(pixels_of(ours.features([prepared]).pooled)[0], ours.prepare(data))


def test_without_a_decoder_no_file_is_taken() -> None:
    assert not backbone().takes_file(STRAWBERRY)
    assert backbone().prepare_file(STRAWBERRY).shape == (100, 100, 3)  # decoded here, scaled


def damaged(data: bytes) -> bytes:
    """Its header is plain and it has an end, but its codes are none of its tables'."""
    start = data.index(b"\xff\xc4")
    return data[: start + 5] + b"\xff" * 16 + data[start + 21 :]


def test_a_damaged_jpeg_among_good_ones_is_told_alone() -> None:
    ours = backbone(decode=jpeg_decoder("cpu"))
    bad = damaged(STRAWBERRY)
    assert ours.takes_file(bad)
    batch = [ours.prepare_file(data) for data in (STRAWBERRY, bad, jpeg(picture(60, 50)))]
    with pytest.raises(DecodeError, match="damaged picture"):
        ours.features(batch)
    assert ours.features([batch[0], batch[2]]).pooled.shape == (2, 3 * SIDE**2)


def test_what_the_device_refuses_is_decoded_in_the_sandbox() -> None:
    """As one does that knows less than libjpeg; the others are decoded there nevertheless."""
    refused = jpeg(picture(60, 50))
    decoded: list[int] = []

    def decode(files: list[Tensor]) -> list[Tensor]:
        if any(file.numpy().tobytes() == refused for file in files):
            raise RuntimeError("nvjpegDecodeBatched failed")
        decoded.append(len(files))
        return jpeg_decoder("cpu")(files)

    ours = backbone(decode=decode)
    files = [STRAWBERRY, refused, STRAWBERRY]
    found = pixels_of(ours.features([ours.prepare_file(data) for data in files]).pooled)
    assert decoded == [1, 1]
    np.testing.assert_array_equal(found[1], ours.prepare(refused))
    np.testing.assert_array_equal(found[0], found[2])


def test_a_gpu_decodes_apart_from_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the calls only: there is no GPU here."""
    cuda, decode = Mock(), Mock()
    decode.return_value = [cuda.picture]
    decode.side_effect = lambda _: cuda.decode() and decode.return_value
    cuda.stream.return_value = MagicMock()
    cuda.stream.return_value.__exit__ = lambda *_: cuda.left()
    monkeypatch.setattr(torch, "cuda", cuda)
    device = torch.device("cuda:0")
    assert device_pictures._apart(decode, device)([torch.zeros(1)]) == [cuda.picture]
    aside, computing = cuda.Stream.return_value, cuda.current_stream.return_value
    assert cuda.mock_calls == [
        *[call.Stream(device), call.current_stream(device), call.stream(aside), call.stream().__enter__()],
        *[call.decode(), call.left(), call.current_stream().wait_stream(aside)],
        call.picture.record_stream(computing),
    ]


def test_memory_that_runs_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Fit, "__call__", full)
    ours = backbone()
    with pytest.raises(MemoryError, match="2 pictures are too large for the memory of cpu"):
        ours.features([picture(40, 50), picture(50, 40)])


def encoder(image: ImageBackbone) -> ProjectedEncoder:
    return ProjectedEncoder(Space(name="pixels", dim=image.dim, revision="1"), image, IdentityProjection())


def test_two_threads_encode_files_in_order(tmp_path: Path) -> None:
    """Through the sandbox and the device, two threads that share one encoder, as they do on a GPU."""
    paths = []
    for number in range(12):
        paths.append(tmp_path / f"{number}.{'png' if number % 3 == 0 else 'jpg'}")
        Image.fromarray(picture(20 + number, 30)).save(paths[-1])
    ours = encoder(backbone(decode=jpeg_decoder("cpu")))
    found = encode([ours, ours], paths, batch_size=2)
    expected = np.stack([ours.prepare(path) for path in paths]).reshape(12, -1).astype(np.float32)
    np.testing.assert_allclose(found, unit_rows(expected), atol=1e-6)


def test_a_file_that_neither_decodes_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(damaged(STRAWBERRY))
    with pytest.raises(DecodeError, match="damaged picture"):
        encode(encoder(backbone(decode=jpeg_decoder("cpu"))), [ASSETS / "strawberry.jpg", tmp_path / "bad.jpg"])


def test_one_object_serves_many_threads() -> None:
    ours = backbone(decode=jpeg_decoder("cpu"))
    batch: list[Prepared] = [ours.prepare_file(item) for item in (STRAWBERRY, picture(50, 60), damaged(STRAWBERRY))]
    expected = ours.features(batch[:2]).pooled
    barrier = threading.Barrier(4)

    def work(number: int) -> bool:
        barrier.wait()
        if number % 2:
            with pytest.raises(DecodeError):
                ours.features(batch)
        return np.array_equal(ours.features(batch[:2]).pooled, expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


class Nothing:
    """A network that is only built."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __call__(self, *_: Any) -> tuple[NDArray[Any], ...]:
        raise AssertionError("not to be run")


@pytest.mark.parametrize(
    ("mode", "device", "resizes", "decodes"),
    [
        *[("jpeg", "cpu", False, False), ("resize", PLAIN, False, False), ("", "cuda:0", False, False)],
        *[("cpu", "cuda:0", False, False), ("resize", "cuda:1", True, False), ("jpeg", "cuda:0", True, True)],
        *[("resize", "mps", True, False), ("jpeg", "mps", True, False)],
    ],
)
def test_what_the_variable_does(
    monkeypatch: pytest.MonkeyPatch, mode: str, device: str, resizes: bool, decodes: bool
) -> None:
    monkeypatch.setenv("TRIVIUM_GPU_PICTURES", mode)
    monkeypatch.setattr(device_pictures, "_apart", lambda decode, _: decode)  # which makes a stream
    for build in (
        lambda: image_backbone(Nothing(device), FITS[0], dim=4, heads={}, layers={}),
        lambda: BACKBONES["efficientnet-lite0"].build(Path(), Nothing(device)),
    ):
        built = build()
        assert isinstance(built, ImageBackbone)
        assert (built._on_device is not None) == resizes
        assert built.takes_file(STRAWBERRY) == decodes


def test_a_wrong_word_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_GPU_PICTURES", "yes")
    with pytest.raises(DeviceError, match="TRIVIUM_GPU_PICTURES must be one of cpu, resize, jpeg, got 'yes'"):
        image_backbone(Nothing("cuda:0"), FITS[0], dim=4, heads={}, layers={})


@pytest.mark.weights
@pytest.mark.parametrize("decode", [None, jpeg_decoder("cpu")], ids=["resize", "jpeg"])
def test_vectors_of_the_device_path(weights: dict[str, Path], decode: Decode | None) -> None:
    """Half precision as on a GPU; full decoding where the processor decodes scaled."""
    build = BACKBONES["efficientnet-lite0"].architecture(weights["efficientnet-lite0"]).build
    fit = Fit(side=224, mode="squash")
    plain = ImageBackbone(
        TorchNetwork(build(), device=PLAIN), fit, dim=1280, heads={"imagenet": 1000}, layers=IMAGE_LAYERS
    )
    network = TorchNetwork(build(), device=PLAIN, dtype=torch.float16)
    pictures = DevicePictures(fit, "cpu", decode=decode)
    ours = ImageBackbone(network, fit, dim=1280, heads={"imagenet": 1000}, layers=IMAGE_LAYERS, on_device=pictures)
    files = [(ASSETS / name).read_bytes() for name in ("strawberry.jpg", "airliner.png", "teacup.webp")]
    files.append(jpeg(picture(1500, 2000), quality=92))
    found = ours.features([ours.prepare_file(data) for data in files])
    expected = plain.features([plain.prepare(data) for data in files])
    cosines = (unit_rows(found.pooled) * unit_rows(expected.pooled)).sum(axis=1)
    assert cosines.min() > 0.999
    assert found.logits["imagenet"].shape == (4, 1000)


def flat(mode: str = "RGB", **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def exif(**tags: Any) -> Image.Exif:
    made = Image.Exif()
    for name, value in tags.items():
        made[ExifTags.Base[name]] = value
    return made


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + segment(marker, body) + data[2:]


UPRIGHT = b"Exif\0\0II*\0" + struct.pack("<IHHHIHH", 8, 1, 0x0112, 3, 1, 1, 0)


def test_assets() -> None:
    found = {path.name: plain_jpeg_size(path.read_bytes()) for path in ASSETS.iterdir()}
    assert {name: size for name, size in found.items() if size is not None} == {"strawberry.jpg": (200, 200)}


@pytest.mark.parametrize(
    "options",
    [
        *[{}, {"mode": "L"}, {"progressive": True}, {"optimize": True}, {"quality": 100}, {"restart_marker_rows": 1}],
        *[{"subsampling": 0}, {"subsampling": 1}, {"icc_profile": b"x" * 200_000}, {"comment": b"hello"}],
        *[{"exif": exif(Orientation=1)}, {"exif": exif(Make="camera", ImageWidth=3)}, {"xmp": b"<x:xmpmeta/>"}],
    ],
    ids=lambda options: "-".join(options),
)
def test_plain(options: dict[str, Any]) -> None:
    assert plain_jpeg_size(flat(**options)) == (HEIGHT, WIDTH)


def test_one_exif_block_is_plain() -> None:
    assert plain_jpeg_size(with_segment(flat(), 0xE1, UPRIGHT)) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("endian", ["<", ">"])
def test_exif_in_both_orders(endian: str) -> None:
    for value, expected in ((1, (HEIGHT, WIDTH)), (6, None), (0, None), (256, None)):
        tiff = {"<": b"II*\0", ">": b"MM\0*"}[endian] + struct.pack(f"{endian}IHHHIHH", 8, 1, 0x0112, 3, 1, value, 0)
        assert plain_jpeg_size(with_segment(flat(), 0xE1, b"Exif\0\0" + tiff)) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        flat(mode="CMYK"),
        flat(exif=exif(Orientation=6)),
        flat(exif=exif(Orientation=3)),
        flat(keep_rgb=True),
        flat(xmp=b'<rdf:Description tiff:Orientation="6"/>'),
        with_segment(flat(), 0xE1, b"Exif\0\0"),
        with_segment(flat(), 0xE1, b"Exif\0\0MM\0*" + b"\xff" * 40),
        with_segment(flat(), 0xE1, UPRIGHT.replace(b"\1\0\x12", b"\2\0\x12")),  # two entries, of which one is there
        with_segment(with_segment(flat(), 0xE1, UPRIGHT), 0xE1, UPRIGHT),  # Pillow reads both as one
        with_segment(flat(), 0xEE, b"Adobe\0\x64\0\0\0\0\0"),  # it says: RGB
        with_segment(flat(), 0x01, b""),
        flat()[:-2],  # no end
        flat()[:300],
        flat(progressive=True).replace(b"\xff\xd9", b"\xff\xda\0\0" * 100 + b"\xff\xd9"),  # a scan after the other
        b"".join([b"\xff\xd8", segment(0xFE, b"") * 500, flat()[2:]]),
        flat() + b"\0" * (16 << 20),
        (ASSETS / "airliner.png").read_bytes(),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_not_plain(data: bytes) -> None:
    assert plain_jpeg_size(data) is None


@pytest.mark.parametrize(
    ("place", "byte"),
    [(0, 12), (6, 9), (9, 9), (7, 0x44), (10, 0x22)],
    ids=["12 bits", "identity of brightness", "identity of a colour", "rare sampling", "sampling of a colour"],
)
def test_frame_headers_that_are_not_usual(place: int, byte: int) -> None:
    data = bytearray(flat())
    start = data.index(b"\xff\xc0") + 4
    data[start + place] = byte
    assert plain_jpeg_size(bytes(data)) is None


@pytest.mark.parametrize("size", [(0, 60), (40, 0), (20_000, 20_000)])
def test_sizes_that_are_none(size: tuple[int, int]) -> None:
    data = flat()
    start = data.index(b"\xff\xc0") + 5
    assert plain_jpeg_size(data[:start] + struct.pack(">HH", *size) + data[start + 4 :]) is None


def test_the_limit_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    assert plain_jpeg_size(flat()) is None


EXIF = flat(exif=exif(Orientation=1, Make="camera"))
FILES = st.sampled_from(
    [
        STRAWBERRY,
        EXIF,
        flat(progressive=True),
        flat(mode="L"),
        flat(mode="CMYK"),
        flat(keep_rgb=True),
    ]
)


@given(FILES, st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=3), st.integers(0, 3000))
def test_what_passes_is_what_pillow_sees(data: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    """Whatever is changed: never an error, and no picture that another decoder would turn, colour or size otherwise."""
    mutant = bytearray(data)
    for place, byte in changes:
        mutant[place % len(mutant)] = byte
    found = plain_jpeg_size(bytes(mutant) if cut > 2000 else bytes(mutant[:cut]))
    if found is None:
        return
    try:
        with Image.open(io.BytesIO(mutant), formats=("JPEG",)) as image:
            assert (image.height, image.width) == found
            assert image.mode in ("RGB", "L")
            assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except OSError:
        return  # Pillow reads more of the header, and refuses


def test_the_assets_pixels() -> None:
    assert decode_image(STRAWBERRY).size == plain_jpeg_size(STRAWBERRY)
