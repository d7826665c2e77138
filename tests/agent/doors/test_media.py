"""Pictures and sounds become exactly what the model takes, or are refused; hostile ones too."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import soundfile
from PIL import Image

from edge_agent import Model
from edge_agent.doors.media import PIXELS_MAX, Images, Sounds
from edge_agent.media_rules import Rules
from edge_contract import bundle as bundles
from edge_contract.errors import InputFault


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def seen(model: Model, rules: Rules, picture: bytes | np.ndarray) -> np.ndarray:
    """What the model was given."""
    return model.predict(Images(model.manifest, rules).rows(picture)).outputs["y"]


def test_layouts_types_and_numbers(echo, colours: np.ndarray) -> None:
    data = encoded(colours)
    scaled = colours / 255
    np.testing.assert_allclose(
        seen(echo(None, 3, 5, 7), Rules(), data)[0], scaled.transpose(2, 0, 1), atol=1e-6
    )
    np.testing.assert_allclose(seen(echo(1, 5, 7, 3), Rules(), data)[0], scaled, atol=1e-6)
    np.testing.assert_array_equal(
        seen(echo(None, 5, 7, 3, dtype="uint8"), Rules(scale=9.0), data)[0], colours
    )
    rules = Rules(scale=1.0, mean=(1.0, 2.0, 3.0), std=(2.0,))
    np.testing.assert_allclose(
        seen(echo(None, None, None, 3), rules, data)[0],
        (colours.astype(float) - [1, 2, 3]) / 2, rtol=1e-6,
    )  # fmt: skip
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    np.testing.assert_allclose(
        seen(echo(None, 1, 5, 7), Rules(), data)[0, 0], grey / 255, atol=1e-6
    )
    np.testing.assert_allclose(seen(echo(None, 5, 7), Rules(), data)[0], grey / 255, atol=1e-6)
    np.testing.assert_allclose(seen(echo(None, 5, 7), Rules(), grey)[0], grey / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_a_frame_in_memory_and_a_file_are_one(echo, colours: np.ndarray, kind: str) -> None:
    model = echo(None, 3, 5, 7)
    lossless = {"lossless": True} if kind == "WEBP" else {}
    found = seen(model, Rules(), encoded(colours, kind, **lossless))
    if kind != "JPEG":
        np.testing.assert_array_equal(found, seen(model, Rules(), colours))
    assert found.shape == (1, 3, 5, 7)


def test_a_phones_turned_picture_stands_upright(echo) -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    found = seen(echo(None, 8, 4), Rules(), encoded(pixels, "PNG", exif=exif))
    assert found[0, 0, 3] == 1.0


def test_other_proportions_are_stretched_cropped_or_padded(echo) -> None:
    wide = np.zeros((10, 20), np.uint8)
    wide[:, 5:15] = 200
    model = echo(None, 10, 10)
    assert seen(model, Rules(fit="crop"), wide).min() == pytest.approx(200 / 255)
    padded = seen(model, Rules(fit="pad"), wide)[0]
    assert padded[0].max() == 0.0
    assert padded[5, 5] == pytest.approx(200 / 255, abs=0.02)
    stretched = seen(model, Rules(), wide)[0]
    assert (stretched[5, 0], stretched[0, 5]) == (0.0, pytest.approx(200 / 255, abs=0.02))


def test_a_table_of_pixels_is_filled_row_by_row(tiny_bundle) -> None:
    pump = Model.from_bundle(bundles.read(tiny_bundle()))
    pixels = np.array([[1, 2], [3, 4]], np.uint8)
    images = Images(pump.manifest, Rules(size=(2, 2), scale=1.0))
    assert images.rows(pixels) == [1.0, 2.0, 3.0, 4.0]
    assert pump.predict(images.rows(pixels)) == pump.predict([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("shape", "rules", "said"),
    [
        ((None, 3, 5, 3), Rules(), "can be read in two ways"),
        ((None, 4, 5, 6), Rules(), "is no picture"),
        ((None, 4), Rules(), "is no picture"),
        ((8, 3, 5, 5), Rules(), "is no picture"),
        ((None, 3, 5, 5), Rules(size=(6, 5)), "size says a width of 6, the model 5"),
        ((None, 3, 5, 5), Rules(layout="nhwc"), "is not nhwc"),
        ((None, 3, 5, 5), Rules(mean=(1.0, 2.0)), "mean holds 2 numbers for 3 channels"),
        ((None, 3, 5, 5), Rules(std=(0.0,)), "std holds a zero"),
        ((None, 3, None, None), Rules(size=(6,)), "a width and a height"),
    ],
)
def test_what_is_left_open_is_asked_for(echo, shape, rules: Rules, said: str) -> None:
    with pytest.raises(InputFault) as caught:
        Images(echo(*shape).manifest, rules)
    assert said in caught.value.what


def test_tables_that_are_no_pictures_say_so(tiny_bundle, mixed_bundle) -> None:
    pump, site = (bundles.read(b).manifest for b in (tiny_bundle(), mixed_bundle()))
    for manifest, rules, said in (
        (pump, Rules(), "of which width"),
        (pump, Rules(size=(3, 3)), "no picture of 3 x 3"),
        (site, Rules(size=(3, 1)), "takes text"),
    ):
        with pytest.raises(InputFault, match=said):
            Images(manifest, rules)
    with pytest.raises(InputFault, match="not samples"):
        Sounds(pump)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it has many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", head),
        chunk(b"IDAT", zlib.compress(b"\0" * 10_000)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_hostile_pictures_are_refused_and_nothing_else_escapes(echo, colours: np.ndarray) -> None:
    images = Images(echo(None, 3, 5, 7).manifest)
    side = int(PIXELS_MAX**0.5) + 1
    with pytest.raises(InputFault, match=f"a picture of {side} x {side} pixels, over"):
        images.rows(bomb(side, side))
    for data in (bomb(60_000, 60_000), bomb(2**31 - 1, 2**31 - 1)):
        with pytest.raises(InputFault):
            images.rows(data)
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    hostile = [b"", b"GIF89a", b"%PDF-1.4", b"P6 9 9 255 ", b"\0" * 1000]
    for kind in ("PNG", "BMP", "WEBP", "JPEG"):
        whole = encoded(colours, kind)
        hostile += [whole[:cut] for cut in rng.sample(range(len(whole)), 20)]
        for _ in range(60):
            spoilt = bytearray(whole)
            for _ in range(rng.randint(1, 6)):
                spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
            hostile.append(bytes(spoilt))
    refused = 0
    for data in hostile:
        try:
            images.rows(data)
        except InputFault:
            refused += 1
    assert refused >= 5
    with pytest.raises(InputFault, match="more than 8 bits"):
        images.rows(encoded(np.zeros((5, 7), np.uint16)))


# -- sounds --------------------------------------------------------------------------------------


def wave(samples: np.ndarray, rate: int = 8000, kind: str = "WAV") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return out.getvalue()


@pytest.mark.parametrize("shape", [(None, 100), (None, 1, 100), (1, 100), (100,)])
def test_a_sound_comes_in_windows_the_last_one_padded(echo, shape) -> None:
    model = echo(*shape)
    left = np.random.default_rng(1).normal(size=250).astype(np.float32) / 4
    data = wave(np.stack([left, np.zeros(250, np.float32)], axis=1))
    parts = [model.predict(rows).outputs["y"] for rows in Sounds(model.manifest).rows(data)]
    found = np.concatenate([part.ravel() for part in parts])
    np.testing.assert_allclose(found[:250], left / 2, atol=1e-7)
    assert found.shape == (300,)
    assert not found[250:].any()


def test_an_open_length_takes_the_whole_and_flac_is_read(echo) -> None:
    model = echo(None, None)
    samples = np.linspace(-0.5, 0.5, 123)
    (rows,) = Sounds(model.manifest).rows(wave(samples, kind="FLAC"))
    assert rows["x"].shape == (1, 123)
    np.testing.assert_allclose(rows["x"][0], samples, atol=1e-4)


def test_another_rate_and_what_is_no_sound_are_refused(echo) -> None:
    model = echo(None, 100)
    sounds = Sounds(model.manifest, Rules(rate_hz=16_000))
    with pytest.raises(InputFault, match="8000 samples a second, expected 16000"):
        sounds.rows(wave(np.zeros(100)))
    whole = wave(np.zeros(100), 16_000)
    head = bytearray(whole)
    head[4:8] = head[40:44] = b"\xff\xff\xff\x7f"
    for data in (b"", b"RIFF", whole[:30], bytes(head[:60]), wave(np.zeros((0, 1)), 16_000)):
        with pytest.raises(InputFault):
            sounds.rows(data)


def test_without_the_extras_the_advice_names_them(echo) -> None:
    script = (
        "import sys\n"
        "sys.modules['PIL'] = sys.modules['soundfile'] = None\n"
        "from edge_agent.doors import media\n"
        "from edge_contract import manifest\n"
        "from edge_contract.errors import InputFault\n"
        "data = sys.stdin.buffer.read()\n"
        "for kind in (media.Images, media.Sounds):\n"
        "    try:\n"
        "        kind(manifest.decode(data))\n"
        "    except (media.MissingExtra, InputFault) as error:\n"
        "        print(error.advice)\n"
    )
    from edge_contract import manifest as manifests

    told = []
    for shape in ((None, 5, 7, 3), (None, 100)):
        data = manifests.encode(echo(*shape).manifest)
        ran = subprocess.run(
            [sys.executable, "-c", script], input=data, capture_output=True, check=True
        )
        told.append(ran.stdout.decode())
    assert "edge-pack[images]" in told[0]
    assert "edge-pack[audio]" in told[1]


def test_a_file_that_is_no_picture_is_refused_in_words_and_not_by_an_address(echo) -> None:
    model = echo(None, 3, 5, 7)
    with pytest.raises(InputFault) as refused:
        seen(model, Rules(), b"hello, this is text")
    assert refused.value.what == "not a picture that can be read: of no known form"
    assert "JPEG" in refused.value.advice
