"""Published numbers, in dB: peak signal-to-noise ratio over the test views of a scene.

Backpropagation, SRN, NV and LLFF per scene: NeRF (arXiv 2003.08934), tables of single scenes, which arXiv 2006.12878
compares with. DFA: Tables 1 and A.5 of arXiv 2006.12878 (version 1), whose copied columns have two errors (fern by
LLFF, flower by SRN), which are corrected here. The field `psnr` of its released checkpoints is no score on test views:
it is that of the sum of coarse and fine squared error, on the last batch of training rays, 3 dB lower than that of the
fine network alone where both are alike.
"""

from __future__ import annotations

# scene: (backpropagation, SRN, NV, LLFF); NV takes bounded scenes only
BY_SCENE: dict[str, tuple[float, float, float | None, float]] = {
    "chair": (33.00, 26.96, 28.33, 28.72),
    "drums": (25.01, 17.18, 22.58, 21.13),
    "ficus": (30.13, 20.73, 24.79, 21.79),
    "hotdog": (36.18, 26.81, 30.71, 31.41),
    "lego": (32.54, 20.85, 26.08, 24.54),
    "materials": (29.62, 18.09, 24.22, 20.72),
    "mic": (32.91, 26.85, 27.78, 27.48),
    "ship": (28.65, 20.60, 23.93, 23.22),
    "room": (32.70, 27.29, None, 28.42),
    "fern": (25.17, 21.37, None, 22.85),
    "leaves": (20.92, 18.24, None, 19.52),
    "fortress": (31.16, 26.63, None, 29.40),
    "orchids": (20.36, 17.37, None, 18.52),
    "flower": (27.40, 24.63, None, 25.46),
    "trex": (26.80, 22.87, None, 24.15),
    "horns": (27.45, 24.33, None, 24.70),
}

DFA_BY_SCENE: dict[str, float] = {
    "chair": 28.74,
    "drums": 22.15,
    "ficus": 25.61,
    "hotdog": 28.03,
    "lego": 24.93,
    "materials": 25.15,
    "mic": 25.43,
    "ship": 23.25,
    "room": 24.20,
    "fern": 21.82,
    "leaves": 16.50,
    "fortress": 25.16,
    "orchids": 16.73,
    "flower": 21.55,
    "trex": 19.43,
    "horns": 20.75,
}

# Table 1, means over scenes; all but DFA's from the NeRF paper.
TABLE_1 = {
    "synthetic": {"NV": 26.05, "SRN": 22.26, "LLFF": 24.88, "bp": 31.01, "dfa": 25.41},
    "real": {"SRN": 22.84, "LLFF": 24.13, "bp": 26.50, "dfa": 20.77},
}


def by_scene(scene: str, method: str) -> float | None:
    """The number of Table A.5; shallow training has none."""
    return BY_SCENE[scene][0] if method == "bp" else DFA_BY_SCENE[scene] if method == "dfa" else None
