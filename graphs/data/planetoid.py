"""The Planetoid files of Cora, CiteSeer and PubMed (Yang et al. 2016): where they are, their checksums, reading them.

They lie in planetoid/Cora/raw, or in any folder that PyG's `Planetoid` makes of a root and a name in either case.
The files are pickles, and a pickle can run code. Each is compared with its published checksum before it is opened.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import Tensor

from harness.data import RemoteFile, data_root, fetch

NAMES = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}
COMMIT = "af6abf468a772cc055bec88c52e4d6f51b7c37e3"  # of github.com/kimiyoung/planetoid

SHA256 = {
    "cora.x": "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab",
    "cora.y": "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1",
    "cora.tx": "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
    "cora.ty": "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
    "cora.allx": "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
    "cora.ally": "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
    "cora.graph": "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
    "cora.test.index": "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
    "citeseer.x": "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6",
    "citeseer.y": "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924",
    "citeseer.tx": "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
    "citeseer.ty": "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
    "citeseer.allx": "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
    "citeseer.ally": "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
    "citeseer.graph": "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
    "citeseer.test.index": "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
    "pubmed.x": "fbe9cb5c47200d1b7769a26e579be3b7130b556831f9d850e77c4c74f2599b33",
    "pubmed.y": "e6c807633307a07ed659249006536a147c7999c797f11a2560752990181b41b3",
    "pubmed.tx": "4eb5f5d0f30f26497eb0ac6ac9719d09c67e284f1ed0385c93f3ef27a671da3d",
    "pubmed.ty": "ee2e0d4819d9fbcc403689c3bf2e49face401b605932f093bc58ab6461130fdd",
    "pubmed.allx": "508e538e2abdccdd54c4d3e9f49d638b4af7107d85845f66ddea5a5152658b7e",
    "pubmed.ally": "0c37bbe3b5014ec365e9d393cf4791925e5ed94fb194305d74f064a8d7b50f0e",
    "pubmed.graph": "5b89f0036ca22909471f1e6558eb42fa06e0c730a577bde5b058b40638f81dc9",
    "pubmed.test.index": "b101d421688bbaecbd82e8a18f1e282378d6830f3a37666f28ebc47f844341b5",
}


def folders(dataset: str) -> list[str]:
    """Where a data set's files are looked for below a root; the first is ours.

    PyG names the folder as its user spelled the data set, below a root that its user may have named after it as well.
    """
    name = NAMES[dataset]
    spelled = (name, dataset, name.upper())
    tops = ("planetoid/", "Planetoid/", "", *(f"{top}{outer}/" for top in ("", "planetoid/") for outer in spelled))
    return [*(f"{top}{inner}/raw" for top in tops for inner in spelled), "planetoid", "planetoid/data"]


def files(dataset: str) -> list[RemoteFile]:
    """The eight files of "cora", "citeseer" or "pubmed"."""
    first, *others = folders(dataset)
    return [
        RemoteFile(
            path=f"{first}/ind.{name}",
            sha256=digest,
            size=None,
            urls=(
                f"https://raw.githubusercontent.com/kimiyoung/planetoid/{COMMIT}/data/ind.{name}",
                f"https://github.com/kimiyoung/planetoid/raw/{COMMIT}/data/ind.{name}",
            ),
            also=tuple(f"{folder}/ind.{name}" for folder in others),
        )
        for name, digest in SHA256.items()
        if name.startswith(dataset)
    ]


def read_planetoid(dataset: str, data_dir: Path | None) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Features ``[N, f]``, directed edges ``[2, E]``, classes ``[N]``, and masks ``[N]`` "train", "val" and "test".

    Raises:
        UserError: a file is not the published one, or not found and not downloadable.
    """
    from torch_geometric.io import read_planetoid_data

    paths = fetch(files(dataset), data_root(data_dir), NAMES[dataset])
    with tempfile.TemporaryDirectory() as together:  # some files may lie below the root and others in the cache
        for path in paths:
            (Path(together) / path.name).write_bytes(path.read_bytes())
        data = read_planetoid_data(together, dataset)
    masks = {"train": data.train_mask, "val": data.val_mask, "test": data.test_mask}
    return data.x, data.edge_index, data.y, masks
