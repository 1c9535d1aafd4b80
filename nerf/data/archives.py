"""Find a published scene: below the data root, in the cache, or in an archive that is unpacked into the cache."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from harness.data import RemoteFile, cache_dir, data_root, fetch
from harness.data.cache import make_once
from harness.errors import UserError

MIRROR = "https://github.com/yxlao/nerfmirror/releases/download/20220618"
ARCHIVES = {  # all scenes of a data set; their sizes are not known
    "nerf_synthetic": RemoteFile(
        path="nerf_synthetic.zip",
        sha256="f01fd1b4ab045b0d453917346f26f898657bb5bec4834b95fdad1f361826e45e",
        size=None,
        urls=(f"{MIRROR}/nerf_synthetic.zip",),
    ),
    "nerf_llff": RemoteFile(
        path="nerf_llff_data.zip",
        sha256="5794b432feaf4f25bcd603addc6ad0270cec588fed6a364b7952001f07466635",
        size=None,
        urls=(f"{MIRROR}/nerf_llff_data.zip",),
    ),
}


def find_scene(collection: str, scene: str, data_dir: Path | None, known: Sequence[str]) -> Path:
    """The folder of a scene.

    Args:
        collection: "nerf_synthetic" or "nerf_llff": the folder under the root, and which archive.
        scene: Its name.
        data_dir: The data root, only read; None: `$DFA_DATA`, else the user's cache folder.
        known: Scenes that the archive holds. Another name is only looked for in the folders.

    Returns:
        ``<root>/<collection>/<scene>``, of the root or of the cache.

    Raises:
        UserError: it is not found and not downloadable, or the archive is not the published one.
    """
    root, store = data_root(data_dir), cache_dir() / "data"
    if PurePosixPath(scene).name != scene or scene in ("", ".", ".."):
        raise UserError(f"--scene {scene}: give the name of a folder. Published are {', '.join(known)}.")
    for place in (root, store):
        for name in (collection, f"{collection}_data"):  # the latter is how the archive of nerf_llff is called
            if (place / name / scene).is_dir():
                return place / name / scene
    looked = " and ".join(dict.fromkeys(str(place / collection / scene) for place in (root, store)))
    if scene not in known:
        raise UserError(
            f"--scene {scene}: looked for {looked}, and it is not among the published scenes ({', '.join(known)}). "
            f"Put it there, or use --dataset synthetic, which needs nothing."
        )
    archive = fetch([ARCHIVES[collection]], root, f"the scene {scene} (looked for {looked})")[0]
    return make_once(store / collection / scene, partial(_unpack, archive, scene))


def _unpack(archive: Path, scene: str, folder: Path) -> None:
    """Copy the files of one scene out of the archive into an empty folder."""
    try:
        with zipfile.ZipFile(archive) as content:
            for member, place in _members(content.namelist(), scene):
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                with content.open(member) as source, open(folder / place, "wb") as copy:
                    shutil.copyfileobj(source, copy)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is not a whole archive ({error}). Remove it to have it downloaded.") from None


def _members(names: Sequence[str], scene: str) -> list[tuple[str, Path]]:
    """The archive's files of a scene, and where each goes below the scene's folder."""
    found = []
    for name in names:
        parts = PurePosixPath(name).parts
        if scene in parts and not name.endswith("/") and ".." not in parts and "__MACOSX" not in parts:
            found.append((name, Path(*parts[parts.index(scene) + 1 :])))
    return found
