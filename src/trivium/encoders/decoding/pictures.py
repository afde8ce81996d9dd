"""Picture files to RGB: any mode Pillow knows, EXIF rotation applied, alpha over white, bounded before allocation."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.cut_pictures import JPEGS, LEAST_SHARE, ends_in_zeros, rescued
from trivium.encoders.decoding.raw_pictures import is_raw, preview_of
from trivium.encoders.decoding.sounds import Note, untold
from trivium.encoders.decoding.sources import Source, as_file

# Pillow warns about broken metadata and large pictures; we bear the one and check the other ourselves. Set once and
# not around each call: `catch_warnings` is not safe in threads, and decoding runs in several.
warnings.filterwarnings("ignore", module=r"PIL\b")

# 100 megapixels are 300 MB as RGB; the largest consumer sensors have 50 to 200, delivered at 12 to 50.
MAX_PIXELS = 100_000_000
# WebP takes 14 bytes a pixel, and a file of 328 bytes can claim any size: 100 megapixels took 1.3 GiB and 9 s.
MAX_WEBP_PIXELS = 64_000_000
# Of a pixel, what the decoders of libwebp and libjpeg take beside it: two canvases; coefficients of a progressive JPEG.
DECODER_BYTES = 8
# Pixels that are converted at a time: what lies between a picture's own mode and RGB takes up to 32 bytes a pixel.
STRIP_PIXELS = 1 << 21
# A JPEG that is scaled takes no memory for the pixels that it has on disk, and little time: 108 or 200 megapixels of a
# phone are cheap.
SCALED_TIMES = 4
# What a scaled JPEG keeps of both sides, so that our own resize decides.
SCALED_MARGIN = 2
# Formats are recognised by content and only these are tried: EPS, PDF, PSD and their kind run interpreters.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MAGIC = {
    b"\x89PNG": "PNG",
    b"\xff\xd8": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"RIFF": "WebP",
}
TIFF_ORDERS: Mapping[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
# Who made the file for whom (ISO/IEC 23008-12): AVIF is the same container with another codec.
AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
MAX_BRANDS = 64
# Longer side of a rendered drawing: twice what the networks look at, so that their own resize decides.
SVG_PIXELS = 448
MAX_SVG_BYTES = 16 * 1024 * 1024
# Any href that is neither a fragment of the same file nor inline data.
OUTSIDE_REFERENCE = re.compile(rb"""(\bhref)\s*=\s*(["'])(?!#[^/\\"']*\2|data:).*?\2""", re.DOTALL)


def decode_image(
    data: Source,
    *,
    side: int | None = None,
    max_pixels: int | None = None,
    partial: bool = False,
    note: Note = untold,
) -> Image.Image:
    """Decode a picture file's bytes to an upright RGB picture; the first frame of an animation.

    Args:
        data: The file.
        side: What the picture will be brought to, if that is known: a JPEG is then decoded at 1/2, 1/4 or 1/8 of its
            size as long as both its sides keep `SCALED_MARGIN` times that (cosine to full decoding above 0.9999,
            docs/benchmarks.md, "Scaled decoding").
        max_pixels: The most that are decoded, `MAX_PIXELS` if not given; a JPEG that is scaled may have
            `SCALED_TIMES` as many.
        partial: Take the rows that are there of a file that is cut off, if they are more than half; else it is refused.
        note: Told what of it is not there.

    Raises:
        DecodeError: If the content is no known picture, damaged, truncated, or over the limit.
        MemoryError: If there is too little memory.
    """
    formats: tuple[str, ...] = FORMATS
    if is_svg(data):
        data = _render_svg(data)
    elif is_raw(data):
        data = preview_of(data[:])
    elif brands := brands_of(data):
        formats = ("AVIF",) if brands & AVIF_BRANDS else ("HEIF",)
        _prepare_avif() if brands & AVIF_BRANDS else _prepare_heif()
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    size = (0, 0)

    def opened(source: Source) -> ImageFile.ImageFile:
        nonlocal size
        image = Image.open(as_file(source), formats=formats)
        size = image.size
        if side is not None and image.format in JPEGS:
            _check_size(image, SCALED_TIMES * limit)
            image.draft(None, (SCALED_MARGIN * side, SCALED_MARGIN * side))
        _check_size(image, limit)
        return image

    try:
        with opened(data) as image:
            is_cut = image.format in JPEGS and ends_in_zeros(data)
            try:
                image.load()
            except OSError as error:
                if not (is_cut := "truncated" in str(error)):
                    raise
            if is_cut:
                return _what_is_there(data, opened, partial=partial, note=note)
            return to_rgb(_upright(image))
    except UnidentifiedImageError:
        raise DecodeError(_why_unknown(data, formats)) from None
    except Image.DecompressionBombError as error:  # Pillow's own limit, which the header meets before ours
        pixels = re.search(r"\d+", str(error))
        told = f"{int(pixels[0]):,}, " if pixels else ""
        raise DecodeError(f"too many pixels: {told}the limit is {limit:,}") from None
    except DecodeError:
        raise
    except Exception as error:  # Pillow's decoders leak ValueError, SyntaxError, RuntimeError and more on damage
        _require_memory(data, size)
        raise DecodeError(f"damaged picture: {_cut(data) or error or type(error).__name__}") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Load a picture that may be open lazily, and bring it upright to RGB.

    Raises:
        DecodeError: If it has no pixels, too many, or its data are damaged.
    """
    _check_size(image, MAX_PIXELS)
    try:
        image.load()
        return to_rgb(_upright(image))
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"damaged picture: {error or type(error).__name__}") from error


def _what_is_there(
    data: Source, opened: Callable[[Source], ImageFile.ImageFile], *, partial: bool, note: Note
) -> Image.Image:
    """Return the rows that are there of a picture whose file is cut off."""
    found = rescued(data, opened)
    if found is None:
        raise DecodeError(f"damaged picture: {_cut(data) or 'the file is truncated'}")
    if found.is_whole:
        note("the file is cut off behind its last pixel; all of the picture is there")
        return to_rgb(_upright(found.image))
    percent = int(100 * found.share)
    there = f"{percent} % of its rows are there" if found.share < 1 else "all of its rows are there, but coarser"
    if not partial:
        raise DecodeError(f"damaged picture: truncated, {there}")
    if found.share <= LEAST_SHARE:
        raise DecodeError(f"damaged picture: truncated, only {there}, and more than half must be")
    note(f"the file is cut off: {there}")
    rows = Image.fromarray(np.asarray(to_rgb(found.image))[found.there])
    if turned := found.image.getexif().get(ExifTags.Base.Orientation):
        rows.getexif()[ExifTags.Base.Orientation] = turned
    return _upright(rows)


def _require_memory(data: Source, size: tuple[int, int]) -> None:
    """Tell what failed for want of memory from damage, where the decoder does not say.

    Args:
        data: The file.
        size: Width and height, if they are known.

    Raises:
        MemoryError: If there is not as much as the decoder would have taken.
    """
    width, height = size
    if data[:4] == b"RIFF" and data[12:16] == b"VP8X":  # WebP's, of which nothing is known before all is allocated
        width, height = (1 + int.from_bytes(data[place : place + 3], "little") for place in (24, 27))
    elif data[:4] == b"RIFF" and data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + bits % (1 << 14), 1 + (bits >> 14) % (1 << 14)
    elif data[:4] == b"RIFF" and data[12:16] == b"VP8 ":
        width, height = (int.from_bytes(data[place : place + 2], "little") % (1 << 14) for place in (26, 28))
    np.empty(width * height * DECODER_BYTES, np.uint8)


def _cut(data: Source) -> str:
    """Say what is missing of a file that nothing can be decoded of; nothing if that is not seen."""
    head = data[:12]
    if head[:4] == b"RIFF" and (said := int.from_bytes(head[4:8], "little") + 8) > len(data):
        return f"truncated, the header says {said:,} bytes, {len(data):,} are there"
    if head[:4] in (b"II*\0", b"MM\0*") and int.from_bytes(head[4:8], TIFF_ORDERS[head[:2]]) >= len(data):
        return "truncated, the index of the picture is not there"
    return ""


def _why_unknown(data: Source, formats: tuple[str, ...]) -> str:
    """Say why no format was recognised."""
    head = data[:8]
    name = next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)
    if name is None and formats == FORMATS:
        return "not a picture: the content is in no known image format"
    return f"damaged picture: {_cut(data) or f'it begins as {name or formats[0]}, but has no readable header'}"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: 16-bit and float scaled (not clipped), transparency over white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _by_strips(image, lambda strip: _from_array(_values(strip) / 257.0))
    if image.mode in ("I", "F"):
        scaled = _scaling(*_extremes(image))
        return _by_strips(image, lambda strip: _from_array(scaled(_values(strip))))
    if image.has_transparency_data:
        return _by_strips(image, _over_white)
    return image.convert("RGB")


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Cut a picture into parts of its full width and about `STRIP_PIXELS`, each with its upper edge."""
    width, height = image.size
    rows = max(1, STRIP_PIXELS // width)
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a picture to RGB part by part: whole, the steps between would take several times its memory."""
    if image.width * image.height <= STRIP_PIXELS:
        return convert(image)
    rgb = Image.new("RGB", image.size)
    for top, strip in strips(image):
        rgb.paste(convert(strip), (0, top))
    return rgb


def _over_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _check_size(image: Image.Image, limit: int) -> None:
    width, height = image.size
    if not width * height:
        raise DecodeError(f"the picture has no pixels: {width} x {height}")
    if image.format == "WEBP":
        limit = min(limit, MAX_WEBP_PIXELS * max(limit, MAX_PIXELS) // MAX_PIXELS)
    if width * height > limit:
        raise DecodeError(
            f"too many pixels: {width} x {height}, the limit is {limit:,} (--max-megapixels or "
            "TRIVIUM_MAX_MEGAPIXELS raises it)"
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        # Asked first, because a picture that is upright would be copied.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # a broken EXIF block must not lose the picture
        return image


def _values(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image).astype(np.float64)


def _extremes(image: Image.Image) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for _, strip in strips(image):
        values = np.asarray(strip)
        # NumPy's least and largest of anything with a NaN is NaN.
        low, high = float(np.minimum(low, values.min())), float(np.maximum(high, values.max()))
    return low, high


def _scaling(low: float, high: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """How to bring integers of 8 or 16 bits, unit floats or anything else finite into 0 to 255."""
    if not np.isfinite([low, high]).all():
        raise DecodeError("the picture holds NaN or infinity")
    if low >= 0:
        for full in (1.0, 255.0, 65535.0):
            if high <= full:
                return lambda values: values * (255.0 / full)
    return lambda values: (values - low) * (255.0 / max(high - low, 1e-12))


def _from_array(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8), "L").convert("RGB")


def brands_of(data: Source) -> set[bytes]:
    """Return what an HEIC or AVIF picture says that it is; nothing of any other file."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4]), len(data), 4 * MAX_BRANDS)
    return {data[place : place + 4] for place in (8, *range(16, end, 4))} & (AVIF_BRANDS | HEIF_BRANDS)


def formats_of(data: Source) -> tuple[str, ...]:
    """Return in which formats Pillow is to look for a picture, with their decoders there; none of a drawing.

    Raises:
        DecodeError: If the extra that brings a decoder is not installed.
    """
    if is_svg(data):
        return ()
    if not (brands := brands_of(data)):
        return FORMATS
    if brands & AVIF_BRANDS:
        _prepare_avif()
        return ("AVIF",)
    _prepare_heif()
    return ("HEIF",)


def _prepare_avif() -> None:
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one for each core would each reserve memory


def _prepare_heif() -> None:
    """Let Pillow read HEIC.

    Raises:
        DecodeError: If the extra that brings it is not installed.
    """
    try:
        import pillow_heif
    except ImportError:
        raise DecodeError("a HEIC picture: to read it, pillow-heif is needed (pip install 'trivium[heif]')") from None
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.register_heif_opener(thumbnails=False)


def is_svg(data: Source) -> bool:
    """Whether a file is a drawing."""
    # SVG is XML; Pillow's formats begin with none of these bytes.
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith(b"<") and b"<svg" in data[:65536]


def _render_svg(data: Source) -> bytes:
    """Render a drawing to PNG with resvg: no scripts, no network; references to files are blanked."""
    if len(data) > MAX_SVG_BYTES:
        raise DecodeError(f"too large for a drawing: {len(data):,} bytes, the limit is {MAX_SVG_BYTES:,}")
    import resvg_py

    try:
        # resvg would read the pictures that a drawing names, from anywhere on this disk.
        drawing = OUTSIDE_REFERENCE.sub(rb'\1=""', data[:]).decode("utf-8-sig")
        # Both sides are given, and it is fitted inside: a drawing may claim any width, height and ratio.
        return bytes(
            resvg_py.svg_to_bytes(
                svg_string=drawing,
                width=SVG_PIXELS,
                height=SVG_PIXELS,
                background="white",
                dpi=96.0,
                skip_system_fonts="<text" not in drawing,  # else it looks through all of them for each drawing
            )
        )
    except Exception as error:
        raise DecodeError(f"damaged drawing: {error}") from error
