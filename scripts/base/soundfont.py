"""Musical instruments: single notes out of the Fluid sound font, each sample under its instrument's name."""

import re
import struct
import wave
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from base.table import Row, label_of

PACKAGE = "fluid-soundfont-gm"
ROOT = "usr/share/sounds/sf2/FluidR3_GM.sf2"
LICENCE = "MIT"
# Notes of each instrument, from low to high.
NOTES = 4
# A note that is held by looping lasts this long, and fades over its last part.
HELD_SECONDS = 2.5
MAX_SECONDS = 5.0
FADE_SECONDS = 0.3
SAMPLE_BYTES = 46
# "Alto C#5(R)" is the right channel of the alto's C sharp; the left one is enough.
RIGHT = re.compile(r"\(R\)$|\dR$")
# Sample names as they begin -> what is heard; the longest that fits counts.
INSTRUMENTS = {
    "Gun": "a gunshot",
    "Orchcrash": "an orchestra cymbal crash",
    "whistle": "a whistled note",
    "Alto": "an alto saxophone",
    "Slap Bass": "a slapped bass guitar",
    "sitar": "a sitar",
    "tinker bell": "a tinkling bell",
    "dulci": "a hammered dulcimer",
    "Muted": "a muted trumpet",
    "Piccolo": "a piccolo flute",
    "Glocken": "a glockenspiel",
    "Heli": "a helicopter",
    "Picked Bass": "a bass guitar",
    "Finger Bass": "a bass guitar",
    "Fretless": "a fretless bass guitar",
    "Soprano": "a soprano saxophone",
    "Tenor": "a tenor saxophone",
    "Baritone": "a baritone saxophone",
    "Strings": "a string orchestra",
    "Shenai": "a shehnai",
    "Flute": "a flute",
    "E's Bassoon": "a bassoon",
    "Fretnoise": "fret noise of a guitar",
    "Accordian": "an accordion",
    "Pizz": "plucked strings",
    "Violin": "a violin",
    "Cello": "a cello",
    "Viola": "a viola",
    "pan flute": "a pan flute",
    "Taiko Drum": "a taiko drum",
    "Long Taiko": "a taiko drum",
    "Short Taiko": "a taiko drum",
    "shakhchi": "a shakuhachi flute",
    "reed organ": "a reed organ",
    "Oboe": "an oboe",
    "English Horn": "an English horn",
    "Jazz Guitar": "a jazz guitar",
    "Banjo": "a banjo",
    "Clarinet": "a clarinet",
    "Bagpipe": "bagpipes",
    "Shamisen": "a shamisen",
    "Steel Drum": "a steel drum",
    "Orch Bass Drum": "an orchestral bass drum",
    "Orch Snare": "an orchestral snare drum",
    "Sbrass": "a synthesizer brass section",
    "Bowed Glass": "bowed glass",
    "Clavinet": "a clavinet",
    "Brush": "a snare drum played with brushes",
    "Cow Bell": "a cowbell",
    "Brass Section": "a brass section",
    "Distortion": "a distorted electric guitar",
    "Marimba": "a marimba",
    "Harpsichord": "a harpsichord",
    "EP 2": "an electric piano",
    "Electric Piano": "an electric piano",
    "Rhodes": "an electric piano",
    "Celesta": "a celesta",
    "Std Kick": "a bass drum",
    "Power Kick": "a bass drum",
    "Std Snr": "a snare drum",
    "Splash": "a splash cymbal",
    "China Crash": "a crash cymbal",
    "Crsh": "a crash cymbal",
    "BellRide": "the bell of a ride cymbal",
    "Rid": "a ride cymbal",
    "Ohh Voices": "a choir singing ooh",
    "Ahh Choir": "a choir singing ah",
    "solo_vox": "a voice singing",
    "SynthVz": "a synthesizer voice",
    "Xylophone": "a xylophone",
    "Steel": "a steel-string guitar",
    "Nylon": "a nylon-string guitar",
    "B3": "an electric organ",
    "Rock Organ": "a rock organ",
    "Drawbar Organ": "a drawbar organ",
    "trombone": "a trombone",
    "French Horns": "French horns",
    "Church Organ": "a church organ",
    "Tom": "a tom drum",
    "Breath Noise": "a breath",
    "808 Clave": "claves",
    "808 Low Conga": "a conga drum",
    "808 Mid Conga": "a conga drum",
    "808 High Conga": "a conga drum",
    "808 Cowbell": "a cowbell",
    "808 Open Hat": "an open hi-hat",
    "808 Closed Hat": "a closed hi-hat",
    "808 Tom": "an electronic drum",
    "808 Clap": "a hand clap",
    "Electronic Snr": "an electronic snare drum",
    "Low Timbale": "a timbale",
    "High Timbale": "a timbale",
    "Low Tumba": "a conga drum",
    "High Conga": "a conga drum",
    "Low Bongo": "a bongo drum",
    "Hi-Hat Half-Open": "an open hi-hat",
    "Hi-Hat Closed": "a closed hi-hat",
    "Hi-Hat Foot": "a closed hi-hat",
    "Low Agogo": "an agogo bell",
    "High Agogo": "an agogo bell",
    "Clave": "claves",
    "Guiro": "a guiro",
    "Bell Tree": "a bell tree",
    "Low Woodblock": "a woodblock",
    "High Woodblock": "a woodblock",
    "Maracas": "maracas",
    "Small Shaker": "a shaker",
    "Cabasa": "a cabasa",
    "Castanet": "castanets",
    "Sleigh Bells": "sleigh bells",
    "Triangle": "a triangle being struck",
    "Quica": "a cuica drum",
    "Long Whistle": "a whistle being blown",
    "Short Whistle": "a whistle being blown",
    "Tambourine": "a tambourine",
    "Scratch": "a record being scratched",
    "Vibra Slap": "a vibraslap",
    "Clap": "a hand clap",
    "Metronome Click": "a metronome ticking",
    "Metronome Bell": "the bell of a metronome",
    "Sticks": "drum sticks being clicked together",
    "Timpani": "a timpani",
    "Clean": "an electric guitar",
    "P200 Piano": "a grand piano",
    "Applause": "applause of an audience",
    "Vibraphone": "a vibraphone",
    "ReverseCymbal": "a reversed cymbal",
    "Bass": "a bass guitar",
    "Acoustic Bass": "a double bass",
    "Sea Shore": "waves on the seashore",
    "Music Box": "a music box",
    "Bird": "a bird tweeting",
    "Recorder": "a recorder",
    "Harmonics": "guitar harmonics",
    "harmnc": "a harmonica",
    "PalmMuted Guitar": "a palm-muted electric guitar",
    "Sine Wave": "a pure tone",
    "Square Wave": "a square wave tone",
    "Sawtooth Wave": "a sawtooth wave tone",
    "Ocar": "an ocarina",
    "Wind": "wind blowing",
    "Synth Strings": "synthesizer strings",
    "Tubular Bells": "tubular bells",
    "Tuba": "a tuba",
    "Calliope Lead": "a calliope",
    "Kalimba": "a kalimba",
    "Telephone": "a telephone ringing",
    "Orch Hit": "an orchestra hit",
    "Harp": "a harp",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One recorded note; places are counted in samples."""

    name: str
    start: int
    end: int
    loop_start: int
    loop_end: int
    rate_hz: int
    key: int  # MIDI note
    is_looped: bool


def instruments(unpacked: Path, folder: Path) -> list[Row]:
    """Write a few notes of every instrument to `media/PACKAGE` and return a row for each."""
    data = (unpacked / ROOT).read_bytes()
    chunks = dict(_chunks(data))
    pcm = np.frombuffer(chunks["smpl"], dtype="<i2")
    notes: dict[str, list[Sample]] = defaultdict(list)
    for sample in _samples(chunks["shdr"]):
        if (caption := caption_of(sample.name)) and not RIGHT.search(sample.name):
            notes[caption].append(sample)
    target = folder / "media" / PACKAGE
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for caption, samples in sorted(notes.items()):
        ordered = sorted(samples, key=lambda sample: sample.key)
        places = np.linspace(0, len(ordered) - 1, min(NOTES, len(ordered))).round().astype(int)
        for number, place in enumerate(places):
            stem = f"{label_of(caption).replace(' ', '_')}-{number}"
            _write_wave(target / f"{stem}.wav", _held(ordered[place], pcm), rate_hz=ordered[place].rate_hz)
            row = Row(text=caption, audio=f"media/{PACKAGE}/{stem}.wav", label=label_of(caption), source=PACKAGE)
            rows.append(row)
    return rows


def is_wanted(name: str) -> bool:
    """Tell which files of the package to unpack."""
    return name == ROOT


def caption_of(name: str) -> str:
    """Return what a sample of this name sounds like; empty if the name tells nothing."""
    fitting = [known for known in INSTRUMENTS if re.match(rf"{re.escape(known)}(?![a-z])", name)]
    return INSTRUMENTS[max(fitting, key=len)] if fitting else ""


def _chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the chunks inside a RIFF file's lists."""
    place = 12
    while place < len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        if kind == b"LIST":
            place += 12
            continue
        yield kind.decode("latin-1"), data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def _samples(headers: bytes) -> Iterator[Sample]:
    for place in range(0, len(headers) - SAMPLE_BYTES, SAMPLE_BYTES):  # the last one marks the end
        name, start, end, loop_start, loop_end, rate, key, *_ = struct.unpack_from("<20sIIIIIBbHH", headers, place)
        yield Sample(
            name=name.split(b"\0")[0].decode("latin-1").strip(),
            start=start,
            end=end,
            loop_start=loop_start,
            loop_end=loop_end,
            rate_hz=rate,
            key=key,
            is_looped=loop_end - loop_start > 1 and loop_end <= end,
        )


def _held(sample: Sample, pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return a note as long as it was recorded, or held by its loop if that is longer, with a fade."""
    note = pcm[sample.start : sample.end][: int(MAX_SECONDS * sample.rate_hz)]
    wanted = int(HELD_SECONDS * sample.rate_hz)
    if len(note) >= wanted or not sample.is_looped:
        return note
    before = pcm[sample.start : sample.loop_start]
    loop = pcm[sample.loop_start : sample.loop_end]
    held = np.concatenate([before, np.tile(loop, -(-max(wanted - len(before), 1) // len(loop)))])[:wanted]
    fade = int(FADE_SECONDS * sample.rate_hz)
    faded = held.astype(np.float64)
    faded[-fade:] *= np.linspace(1, 0, fade)
    return faded.astype(np.int16)


def _write_wave(path: Path, samples: NDArray[np.int16], *, rate_hz: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.tobytes())
