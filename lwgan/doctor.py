"""What a data set is like, before anything is trained with it."""

import functools
from collections.abc import Iterator

import numpy as np

from lwgan.pictures import Pictures


def near_duplicates(pictures: Pictures, most_bits: int = 3) -> Iterator[tuple[int, int]]:
    """Pairs of pictures that look alike: perceptual hashes that differ in at most ``most_bits``."""
    hashes = np.array([info.hash for info in pictures.infos], np.uint64)
    for first in range(len(hashes)):
        differ = np.bitwise_count(hashes[first + 1 :] ^ hashes[first])
        for offset in np.flatnonzero(differ <= most_bits):
            yield first, first + 1 + int(offset)


def summary(pictures: Pictures) -> str:
    """What a data set is like, in a few lines: the data doctor."""
    good, bad = len(pictures.names), len(pictures.errors)
    lines = [f"{good} pictures" + (f"; {bad} of {good + bad} files left out" if bad else "")]
    if infos := pictures.infos:
        sides = np.array([(info.width, info.height) for info in infos])
        shorter, longer = sides.min(1), sides.max(1)
        small = int((shorter < pictures.image_size).sum())
        ratios = sides[:, 0] / sides[:, 1]
        lost = float(np.mean(1 - shorter / longer))
        formats = {}
        for info in infos:
            formats[info.format or "drawn"] = formats.get(info.format or "drawn", 0) + 1
        share = functools.partial(np.mean, dtype=float)
        digests = [info.digest for info in infos]
        exact = len(digests) - len(set(digests))
        lines += [
            "formats: " + ", ".join(f"{name} {n}" for name, n in sorted(formats.items())),
            f"shorter side: {shorter.min()} to {shorter.max()} px, median {np.median(shorter):.0f}; "
            f"{small} below {pictures.image_size} px, enlarged",
            f"width / height: {ratios.min():.2f} to {ratios.max():.2f}, median {np.median(ratios):.2f}; "
            f"the middle square cuts away {lost:.0%} of a picture on average",
            f"transparent in part: {share([info.alpha for info in infos]):.0%}; "
            f"grey: {share([info.grey for info in infos]):.0%}",
        ]
        near = [
            pair
            for pair in (near_duplicates(pictures) if len(infos) <= 50_000 else ())
            if digests[pair[0]] != digests[pair[1]]
        ]
        line = f"duplicates: {exact} exact; {len(near)} pairs look alike"
        if near:
            shown = (f"{pictures.names[a]} and {pictures.names[b]}" for a, b in near[:3])
            line += ": " + ", ".join(shown) + (", …" if len(near) > 3 else "")
        lines.append(line)
    return "\n  ".join([*lines, f"kept {pictures.kept}"])
