"""Colour profiles, written by hand: a matrix and a gamma, as ICC.1:2001 has them."""

import struct

import numpy as np

# CIE xy of red, green and blue, and gamma; the white is D65.
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 563 / 256
WIDE = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), 2.0
_SRGB = (0.64, 0.33), (0.30, 0.60), (0.15, 0.06)
_D65, _D50 = (0.95047, 1.0, 1.08883), (0.9642, 1.0, 0.8249)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def to_xyz(primaries):
    """The matrix from linear values to XYZ under D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, np.array(_D65))


def profile(primaries, gamma):
    """The bytes of an RGB profile."""
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ _D65)
    columns = (np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD @ to_xyz(primaries)).T

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    text = b"Of the tests\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"wtpt": xyz(_D50),
        **dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, columns), strict=True)),
        **{
            name: b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
            for name in (b"rTRC", b"gTRC", b"bTRC")
        },
    }
    return written(b"RGB ", tags)


def grey_profile(gamma):
    """The bytes of a grey profile."""
    text = b"Of the tests\0"
    return written(
        b"GRAY",
        {
            b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
            b"wtpt": b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in _D50),
            b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2),
        },
    )


def written(space, tags):
    """A profile of these tags."""
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    illuminant = b"".join(struct.pack(">i", round(v * 65536)) for v in _D50)
    head = (
        bytes(8) + struct.pack(">I", 0x02100000) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    )
    head = head.ljust(68, b"\0") + illuminant
    whole = head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def in_srgb(values, primaries, gamma):
    """uint8 colours of such a profile as sRGB: float (N, 3), cut off at 0 and 255."""
    linear = (np.asarray(values) / 255) ** gamma
    found = linear @ (np.linalg.inv(to_xyz(_SRGB)) @ to_xyz(primaries)).T
    found = np.clip(found, 0, 1)
    curve = np.where(found <= 0.0031308, 12.92 * found, 1.055 * found ** (1 / 2.4) - 0.055)
    return 255 * curve
