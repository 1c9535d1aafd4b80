#!/usr/bin/env bash
# PyG's Planetoid reader gives nodes that have no label the class 0.
#
# Versions: torch-geometric 2.8.1, torch 2.13.0 (CPU), scipy 1.17.1, numpy 2.4.6, Python 3.11.
# Behaviour: CiteSeer's files hold neither features nor a label of 15 of its 3,327 nodes: their numbers are missing from
#   ind.citeseer.test.index. The reader fills the gap with zeros, and takes a label as the place of the largest entry,
#   which for a row of zeros is 0. The public masks leave these nodes out, so nobody notices; a split of all nodes (such
#   as stratified folds, the usual set-up of DNAConv) trains on them and scores them as members of the first class.
#   Shown on small files of the same form, in which node 7 is missing.
# Source: torch_geometric/io/planetoid.py, `read_planetoid_data`: "There are some isolated nodes in the Citeseer graph ...
#   We identify them and add them as zero vectors to `tx` and `ty`", then `y = torch.cat([ally, ty]).max(dim=1)[1]`.
# Output seen:
#   labels [0, 1, 2, 0, 1, 2, 1, 0, 2], features of node 7: 0.0, in a public mask: False
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
labels = np.eye(3)[[0, 1, 2, 0, 1, 2, 1, 2]]  # of nodes 0 to 6 and 8; node 7 has none
features = csr_matrix(np.ones((8, 4)))
parts = {
    "x": features[:3], "y": labels[:3],  # training nodes
    "allx": features[:6], "ally": labels[:6],  # all but the test nodes
    "tx": features[6:], "ty": labels[6:],  # test nodes 6 and 8
    "graph": {node: [(node + 1) % 9, (node - 1) % 9] for node in range(9)},
}
for name, part in parts.items():
    (raw / f"ind.citeseer.{name}").write_bytes(pickle.dumps(part))
(raw / "ind.citeseer.test.index").write_text("6\n8\n")
data = read_planetoid_data(str(raw), "citeseer")
masked = bool((data.train_mask | data.test_mask)[7])
print(f"labels {data.y.tolist()}, features of node 7: {data.x[7].sum().item()}, in a public mask: {masked}")
assert data.y[7] == 0 and data.x[7].sum() == 0 and not masked, "the node has another label now"
PY
