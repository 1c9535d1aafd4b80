#!/usr/bin/env bash
# PyG's Planetoid reader gives nodes that have no label the class 0.
#
# Versions: torch-geometric 2.8.1, torch 2.13.0 (CPU), scipy 1.17.1, numpy 2.4.6, Python 3.11.
# Behaviour: CiteSeer's files hold neither features nor a label of 15 of its 3,327 nodes: their numbers are missing from
#   ind.citeseer.test.index. The reader fills the gap with zeros, and takes a label as the place of the largest entry,
#   which for a row of zeros is 0. The public masks leave these nodes out, so nobody notices; a split of all nodes (such
#   as stratified folds, the usual set-up of DNAConv) trains on them and scores them as members of the first class.
#   Shown on small files of the same form, in which node 504 is missing.
# Source: torch_geometric/io/planetoid.py, `read_planetoid_data`: "There are some isolated nodes in the Citeseer graph ...
#   We identify them and add them as zero vectors to `tx` and `ty`", then `y = torch.cat([ally, ty]).max(dim=1)[1]`.
# Output seen:
#   labels of 503 to 505: [2, 0, 1], features of 504: 0.0, in a mask: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" \
  torch==2.13.0 torch-geometric==2.8.1 scipy==1.17.1 numpy==2.4.6
PYTHONPATH="$folder" python3 - "$folder" <<'PY'
import pickle
import sys
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from torch_geometric.io import read_planetoid_data

raw = Path(sys.argv[1]) / "raw"
raw.mkdir()
labels = np.eye(3)[np.arange(506) % 3]  # the reader wants 500 nodes to validate on
features = csr_matrix(np.ones((506, 4)))
parts = {
    "x": features[:3], "y": labels[:3],  # training nodes
    "allx": features[:503], "ally": labels[:503],  # all but the test nodes
    "tx": features[[503, 505]], "ty": labels[[503, 505]],
    "graph": {node: [(node + 1) % 506, (node - 1) % 506] for node in range(506)},
}
for name, part in parts.items():
    (raw / f"ind.citeseer.{name}").write_bytes(pickle.dumps(part))
(raw / "ind.citeseer.test.index").write_text("503\n505\n")
data = read_planetoid_data(str(raw), "citeseer")
masked = bool((data.train_mask | data.val_mask | data.test_mask)[504])
print(f"labels of 503 to 505: {data.y[503:].tolist()}, features of 504: {data.x[504].sum().item()}, in a mask: {masked}")
assert data.y[504] == 0 and data.x[504].sum() == 0 and not masked, "the node has another label now"
PY
