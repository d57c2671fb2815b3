"""Bytes to pixels: what is read, what is refused, and that nothing but the two documented errors comes out."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from node.errors import BadImage, TooLarge
from node.images import Picture, decode, encode_png
from node.preprocessing import Colour, Fit, Preprocessing, Resample

GREY = Preprocessing(height=8, width=8, colour=Colour.GREY)
RGB = Preprocessing(height=6, width=4)


def file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    rows = np.linspace(0, 255, width * height, dtype=np.uint8).reshape(height, width)
    return Image.fromarray(np.stack([rows, rows[::-1], 255 - rows], axis=-1))


def png_of_zeros(width: int, height: int) -> bytes:
    """A whole PNG of one bit a pixel, made without holding its pixels."""
    compress = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    body = b"".join(compress.compress(row) for _ in range(height)) + compress.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_png_of_the_models_size_comes_back_unchanged():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    assert np.array_equal(decode(encode_png(pixels), GREY), pixels)
    coloured = np.arange(72, dtype=np.uint8).reshape(6, 4, 3)
    assert np.array_equal(decode(encode_png(coloured), RGB), coloured)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_every_listed_format_gives_the_models_shape(kind):
    pixels = decode(file(gradient(40, 30), kind), RGB)
    assert pixels.shape == (6, 4, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_grey_and_coloured(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    source = Image.new(mode, (20, 20)) if mode == "I;16" else gradient(20, 20).convert(mode)
    assert decode(file(source, kind), GREY).shape == (8, 8, 1)
    assert decode(file(source, kind), RGB).shape == (6, 4, 3)


def test_sixteen_bits_are_scaled_not_clipped():
    deep = np.full((8, 8), 0x8000, np.uint16)
    assert decode(file(Image.fromarray(deep)), GREY).mean() == 128


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    assert decode(file(clear), GREY).min() == 255


def test_a_transparent_palette_entry_is_laid_on_white():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0] * 256)
    assert decode(file(image, transparency=0), GREY).min() == 255


def test_a_picture_taken_sideways_is_turned_upright():
    image = Image.new("L", (40, 20), 0)
    image.paste(255, (0, 0, 20, 20))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright: left becomes top
    pixels = decode(file(image, "JPEG", exif=exif, quality=95), GREY)
    assert pixels[0].min() > 200
    assert pixels[-1].max() < 50


def test_cropping_keeps_proportions_where_stretching_does_not():
    image = Image.new("L", (80, 8), 0)
    image.paste(255, (36, 0, 44, 8))  # white only in the very centre
    cropped = Preprocessing(height=8, width=8, colour=Colour.GREY, fit=Fit.CROP_CENTRE, resample=Resample.NEAREST)
    assert decode(file(image), cropped).min() == 255
    assert decode(file(image), GREY).min() == 0


def test_a_large_photo_is_close_to_the_slow_way():
    image = gradient(1600, 1200)
    wanted = Preprocessing(height=32, width=32)
    slow = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), np.int16)
    for kind, options in (("JPEG", {"quality": 95}), ("PNG", {})):
        fast = decode(file(image, kind, **options), wanted).astype(np.int16)
        assert np.abs(fast - slow).mean() < 4, kind


def test_a_bomb_is_refused_from_its_header_in_little_memory():
    bomb = png_of_zeros(50_000, 50_000)
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="pixels"):
            Picture(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_the_pixel_cap_is_ours_not_pillows():
    with pytest.raises(TooLarge, match="10000 x 6000"):
        Picture(png_of_zeros(10_000, 6_000))
    assert Picture(png_of_zeros(8_000, 6_000)).pixels == 48_000_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_truncated_image_is_refused_and_says_so(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = file(Image.fromarray(noise), kind)
    with pytest.raises(BadImage, match=r"damaged|no image"):
        decode(whole[: len(whole) * 2 // 3], RGB)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"%PDF-1.7", b"<svg></svg>", b"II*\0\x08\0\0\0"]
)
def test_what_is_no_listed_image_is_refused(data):
    with pytest.raises(BadImage):
        decode(data, RGB)


def test_a_format_that_is_not_listed_is_refused():
    with pytest.raises(BadImage, match="JPEG, PNG"):
        decode(file(gradient(8, 8), "TIFF"), RGB)


SEEDS = [file(gradient(24, 24), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP")]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=12))
def test_damaged_bytes_give_pixels_or_the_two_documented_errors(seed, changes):
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        assert decode(data, RGB, max_pixels=100_000).shape == (6, 4, 3)
    except (BadImage, TooLarge):
        pass


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_give_the_two_documented_errors(data):
    with pytest.raises((BadImage, TooLarge)):
        decode(data, RGB)


@pytest.mark.parametrize(("progressive", "refused"), [(False, False), (True, True)])
def test_scans_are_counted_where_there_can_be_several(progressive, refused):
    """A decoder is through with one that holds every channel in full; of others it reads as many as there are."""
    data = file(gradient(64, 48), "JPEG", progressive=progressive) + b"\xff\xda" * 150
    if refused:
        with pytest.raises(BadImage, match="more than 100 scans"):
            Picture(data)
    else:
        assert decode(data, RGB).shape == (6, 4, 3)


@pytest.mark.parametrize("shift", [0, 1])
def test_scans_are_found_at_even_and_odd_places(shift):
    data = file(gradient(64, 48), "JPEG", progressive=True) + bytes(shift) + b"\xff\xda" * 150
    with pytest.raises(BadImage, match="more than 100 scans"):
        Picture(data)
