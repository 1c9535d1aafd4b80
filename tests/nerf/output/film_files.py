"""Films read back by ffmpeg itself."""

import re
import subprocess

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe


def read_mp4(path, height, width):
    """The pictures of a film, uint8 [N, height, width, 3], and how many there are a second; fails at another size."""
    command = [get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    about = done.stderr.decode()
    assert f"{width}x{height}" in about, about
    frames = np.frombuffer(done.stdout, dtype=np.uint8).reshape(-1, height, width, 3)
    return frames, float(re.search(r"([0-9.]+) fps", about)[1])
