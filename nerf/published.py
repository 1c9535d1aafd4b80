"""Published numbers, in dB: peak signal-to-noise ratio over the test views of a scene.

Backpropagation, SRN, NV and LLFF per scene: NeRF (arXiv 2003.08934), tables of single scenes, which arXiv 2006.12878
compares with. DFA per scene (Table A.5 of arXiv 2006.12878) could not be read. What its released checkpoints carry in
their field `psnr` is no score on test views: it is that of coarse and fine squared error added, on the last batch of
training rays, 3 dB lower than that of the fine network alone where both are alike.
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

# Table 1, means over scenes, from the NeRF paper.
TABLE_1 = {
    "synthetic": {"NV": 26.05, "SRN": 22.26, "LLFF": 24.88, "NeRF BP": 31.01},
    "real": {"SRN": 22.84, "LLFF": 24.13, "NeRF BP": 26.50},
}
