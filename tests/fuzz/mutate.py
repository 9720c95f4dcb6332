"""Small damages to files: what a bad disk, a broken download, a hasty editor or an enemy might do to them."""

from __future__ import annotations

import random
import re
import struct

_NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, (1 << 28) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, 1 << 63)
_HUGE = (1 << 20, 1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|[][{},:]')
_TOKENS = (
    *(b"null", b"true", b"false", b"[]", b"{}", b'""', b"0", b"-1", b"1.5", b"1e999", b"-1e999", b"1e-400"),
    *(b"NaN", b"Infinity", b"-Infinity", b"4294967296", b"9223372036854775808", b"18446744073709551616"),
    *(
        b"1" + b"0" * 400,
        b"9" * 5000,
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\xff\xfe"',
        b'"\\n\\r\\t"',
        b'"' + b"x" * 5000 + b'"',
    ),
    *(b'"../../etc/passwd"', b'"/etc/passwd"', b'{"a":{"b":[1,{"c":null}]}}', b"[[[1]],[2]]", b'{"a":1,"a":2}'),
    *(b"[" * 200 + b"]" * 200, b"[" * 100_000, b'{"a":' * 20_000, b",", b":", b"}", b"]", b'"', b"\\", b"\n", b""),
)


def mutated_bytes(data: bytes, random_: random.Random) -> bytes:
    """`data` after one to three damages that know nothing of its format."""
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        data = random_.choice(_BYTE_DAMAGES)(data, random_)
    return data


def mutated_json(data: bytes, random_: random.Random) -> bytes:
    """`data`, which is JSON or JSON lines, after one to three damages, mostly to its tokens."""
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        damage = random_.choice(_JSON_DAMAGES) if random_.random() < 0.85 else random_.choice(_BYTE_DAMAGES)
        data = damage(data, random_)
    return data


def mutated_safetensors(data: bytes, random_: random.Random) -> bytes:
    """`data`, which is eight bytes of length, a JSON header and tensors; half the time the length fits the damage."""
    if random_.random() < 0.3:
        return mutated_bytes(data, random_)
    (length,) = struct.unpack_from("<Q", data)
    header, rest = data[8 : 8 + length], data[8 + length :]
    damaged = mutated_json(header, random_)
    return struct.pack("<Q", len(damaged) if random_.random() < 0.8 else length) + damaged + rest


def _place(data: bytes, random_: random.Random) -> int:
    """Somewhere in `data`, more often near its start, where headers are."""
    most = len(data) if random_.random() < 0.5 else min(len(data), 64)
    return random_.randrange(most + 1)


def _flip(data: bytes, random_: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(random_.randint(1, 8) if data else 0):
        damaged[min(_place(data, random_), len(data) - 1)] ^= 1 << random_.randrange(8)
    return bytes(damaged)


def _cut(data: bytes, random_: random.Random) -> bytes:
    return data[: _place(data, random_)]


def _remove(data: bytes, random_: random.Random) -> bytes:
    start = _place(data, random_)
    return data[:start] + data[start + random_.randint(1, 16) :]


def _repeat(data: bytes, random_: random.Random) -> bytes:
    start = _place(data, random_)
    span = data[start : start + random_.randint(1, 64)]
    return data[:start] + span * random_.randint(2, 20) + data[start:]


def _insert(data: bytes, random_: random.Random) -> bytes:
    start = _place(data, random_)
    return data[:start] + random_.randbytes(random_.randint(1, 16)) + data[start:]


def _swap(data: bytes, random_: random.Random) -> bytes:
    first, second, third = sorted(_place(data, random_) for _ in range(3))
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def _number(data: bytes, random_: random.Random) -> bytes:
    """Any place becomes a number that programs stumble over."""
    width = random_.choice(("<I", "<Q"))
    number = struct.pack(width, random_.choice(_NUMBERS) & ((1 << 8 * struct.calcsize(width)) - 1))
    start = _place(data, random_)
    return data[:start] + number + data[start + len(number) :]


def _length(data: bytes, random_: random.Random) -> bytes:
    """What looks like a length or a count becomes a huge one."""
    width = random_.choice(("<I", "<Q"))
    size = struct.calcsize(width)
    places = [at for at in range(len(data) - size + 1) if 0 < struct.unpack_from(width, data, at)[0] <= len(data)]
    if not places:
        return data
    at, number = random_.choice(places), random_.choice(_HUGE) & ((1 << 8 * size) - 1)
    return data[:at] + struct.pack(width, number) + data[at + size :]


def _tokens(data: bytes) -> list[tuple[int, int]]:
    return [match.span() for match in _TOKEN.finditer(data)] or [(0, len(data))]


def _replace_token(data: bytes, random_: random.Random) -> bytes:
    start, end = random_.choice(_tokens(data))
    return data[:start] + random_.choice(_TOKENS) + data[end:]


def _copy_token(data: bytes, random_: random.Random) -> bytes:
    """One token takes the place of another: a key twice, a text for a number."""
    spans = _tokens(data)
    (start, end), (first, last) = random_.choice(spans), random_.choice(spans)
    return data[:start] + data[first:last] + data[end:]


def _change_number(data: bytes, random_: random.Random) -> bytes:
    spans = [match.span() for match in re.finditer(rb"\d+", data)]
    if not spans:
        return data
    start, end = random_.choice(spans)
    return data[:start] + str(random_.choice((*_NUMBERS, *_HUGE))).encode() + data[end:]


def _change_text(data: bytes, random_: random.Random) -> bytes:
    """A letter of a text or key becomes another one, or an escape that means none."""
    spans = [match.span() for match in re.finditer(rb'"[^"\\\n]+"', data)]
    if not spans:
        return data
    start, end = random_.choice(spans)
    at = random_.randrange(start + 1, end - 1)
    letter = random_.choice((b"x", b"\\ud800", b"\\u0000", b"\\u202e", "é".encode(), b"0", b" ", b"."))
    return data[:at] + letter + data[at + 1 :]


def _nest(data: bytes, random_: random.Random) -> bytes:
    start, end = random_.choice(_tokens(data))
    before, after = random_.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'{"0":', b"}")))
    depth = random_.choice((1, 2, 50, 2000, 100_000))
    return data[:start] + before * depth + data[start:end] + after * depth + data[end:]


_BYTE_DAMAGES = (_flip, _cut, _remove, _repeat, _insert, _swap, _number, _length, _length)
_JSON_DAMAGES = (_replace_token, _replace_token, _copy_token, _change_number, _change_text, _nest)
