"""The places that dash-cams write into a track of subtitles of their recordings: those with Ambarella's chips (NextBase
322GW), Thinkware, Garmin, Mini 0806, Roadhawk, E-PRANCE; and drones.

By the published readings of ExifTool (QuickTimeStream.pl, "Process_text" and "ProcessSamples") and nb-dashcam-tools
(camera-file-format.md). A sample is one of

- sentences of NMEA, alone or among other text (`gsensori,4,512,-67,-12,100;GNRMC,…*52`) or numbers (NextBase)
- the same behind a cipher: each letter put for another one (Roadhawk, ends with `*` HH `~`); or all bytes shifted by
  one number, which is told by the `*` of the checksum (E-PRANCE, from a byte 0 to a line's end)
- Ambarella A12 and BlueSkySea: bytes xor 0xAA; from byte 8 `yyyymmddhhmmss`, from 38 `[NS]ddmmmmmm`, `[EW]dddmmmmmm`
  (minutes of four decimals), from 62 km/h in three digits
- Garmin: `PNDM`, behind four bytes of a length or not; from its byte 12, big endian, latitude and longitude as int32,
  of which 2³¹ are 180° (the speed at 8 is in miles to one reading and in kilometres to another)
- Mini 0806: `A,ddmmyy,hhmmss.sss,ddmm.mmmm,N,dddmm.mmmm,W,…`
- drones: as in a file of subtitles beside a clip

Two bytes of a length may stand before, and a box `encd` behind. Times are those of the track. Only those of sentences
are surely UTC, so that they tell the time of the recording.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

from pipeline.archive.positions.fixes import Fix
from pipeline.archive.positions.nmea import Sentence, sentences
from pipeline.archive.positions.sidecars import place_in

_KILOMETRE_AN_HOUR = 1 / 3.6
"""Metres a second."""

_STRANGE = 100
"""Samples without a place behind which nothing more is looked for, where there was none before."""

_MINI = re.compile(r"A,\d{6},\d{6}(?:\.\d+)?,(\d{2})(\d{2}\.\d+),([NS]),(\d{3})(\d{2}\.\d+),([EW]),")

_ROADHAWK = "-I8XQWRVNZOYPUTA0B1C2SJ9K.L,M$D3E4F5G6H7"
"""What stands for `+` and the letters behind it."""

_XOR_BYTES = 282

_NORTH, _EAST = re.compile(rb"([NS])(\d{2})(\d{6})"), re.compile(rb"([EW])(\d{3})(\d{6})")


def read(samples: Sequence[tuple[float, bytes]]) -> tuple[list[Fix], list[tuple[float, float]]]:
    """The fixes of a track, at seconds of the clip; and seconds of the clip with the Unix seconds at them.

    Args:
        samples: of the track: when each begins, seconds of the clip, and its bytes.
    """
    fixes: list[Fix] = []
    clock: list[tuple[float, float]] = []
    for number, (at, sample) in enumerate(samples):
        if number >= _STRANGE and not fixes:
            break
        data = sample.removesuffix(b"\0\0\0\x0cencd\0\0\x01\0")
        if len(data) > 2 and int.from_bytes(data[:2], "big") == len(data) - 2:
            data = data[2:]
        sentence = _sentence(data)
        if sentence is not None:
            fixes.append(sentence.fix(at))
            if sentence.at is not None:
                clock.append((at, sentence.at))
        elif (found := _ambarella(at, data) or _garmin(at, data) or _words(at, data)) is not None:
            fixes.append(found)
    return fixes, clock


def _sentence(data: bytes) -> Sentence | None:
    """The RMC of a sample, else its GGA."""
    for text in _texts(data):
        found = list(sentences(text))
        if found:
            return next((each for each in found if each.day is not None), found[0])
    return None


def _texts(data: bytes) -> Iterator[str]:
    """What a sample may say, plain and behind each cipher."""
    yield data.decode("latin-1")
    if data[:1] == b"\0" and data[-1:] == b"\n" and len(data) > 5:
        shift = ord("*") - data[-4]
        yield bytes((each + shift) & 0xFF for each in data[1:-1]).decode("latin-1")
    if re.search(rb"\*[0-9A-F]{2}~\s*$", data):
        places = range(43, 43 + len(_ROADHAWK))
        # Its checksum is not of what comes out.
        plain = data[: data.rindex(b"*")]
        yield "".join(_ROADHAWK[each - 43] if each in places else chr(each) for each in plain)


def _ambarella(at: float, data: bytes) -> Fix | None:
    if (
        len(data) < _XOR_BYTES
        or data[:2] != b"\0\0"
        or not (data[2:6] == b"\xf2\xe1\xf0\xee" or data[4:6] == b"\xaa\xaa")
    ):
        return None
    plain = bytes(each ^ 0xAA for each in data)
    north, east = _NORTH.fullmatch(plain[38:47]), _EAST.fullmatch(plain[47:57])
    if not plain[8:22].isdigit() or north is None or east is None:
        return None
    speed = int(plain[62:65]) * _KILOMETRE_AN_HOUR if plain[62:65].isdigit() else None
    return Fix(at, _degrees(*north.groups()), _degrees(*east.groups()), speed)


def _degrees(side: bytes, whole: bytes, minutes: bytes) -> float:
    return (int(whole) + int(minutes) / 600_000) * (-1 if side in b"SW" else 1)


def _garmin(at: float, data: bytes) -> Fix | None:
    begin = data.find(b"PNDM", 0, 8)
    if begin not in (0, 4) or len(data) < begin + 20:
        return None
    latitude, longitude = struct.unpack_from(">2i", data, begin + 12)
    scale = 180 / (1 << 31)
    return Fix(at, latitude * scale, longitude * scale)


def _words(at: float, data: bytes) -> Fix | None:
    text = data.decode("latin-1")
    if match := _MINI.search(text):
        north, east = ((int(match[k]) + float(match[k + 1]) / 60) * (-1 if match[k + 2] in "SW" else 1) for k in (1, 4))
        return Fix(at, north, east)
    place = place_in(text)
    return None if place is None else Fix(at, *place)
