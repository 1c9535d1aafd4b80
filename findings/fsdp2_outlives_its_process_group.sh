#!/usr/bin/env bash
# A model that FSDP2 has sharded keeps gloo's threads alive after destroy_process_group, though the model is gone.
#
# Versions: torch 2.13.0 (CPU), numpy 2.4.6, Python 3.11, Linux.
# Behaviour: destroy_process_group ends the threads of the group once nothing else holds it. After one step of a model
#   wrapped by DistributedDataParallel it does. After one step of a model under fully_shard it does not, although the
#   model is out of scope and collected: DTensor caches how its operators shard, and the keys of that cache hold the
#   device mesh, which holds the group. Emptied, the cache lets the group go, and the threads end.
#   A thread of gloo that is still at work while the interpreter shuts down can abort a program that has ended well.
# Source: torch/distributed/tensor/_sharding_prop.py, LocalLRUCache, which is never emptied but by
#   torch/distributed/tensor/debug/__init__.py, _clear_sharding_prop_cache; the C++ side has a second one.
# Output seen:
#   DistributedDataParallel: 0 threads of gloo left
#   fully_shard: 3 threads of gloo left
#   fully_shard, cache emptied: 0 threads of gloo left
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" torch==2.13.0 numpy==2.4.6
cat > "$folder/leave.py" <<'PY'
import gc
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import _clear_sharding_prop_cache


def threads():
    gc.collect()
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)


def step(wrap):
    dist.init_process_group("gloo", rank=0, world_size=1)
    wrap(nn.Linear(4, 4))(torch.ones(2, 4)).sum().backward()
    gc.collect()
    dist.destroy_process_group()


os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
step(nn.parallel.DistributedDataParallel)
print(f"DistributedDataParallel: {threads()} threads of gloo left")
step(lambda layer: fully_shard(layer, mesh=init_device_mesh("cpu", (1,))))
print(f"fully_shard: {threads()} threads of gloo left")
_clear_sharding_prop_cache()
print(f"fully_shard, cache emptied: {threads()} threads of gloo left")
PY
seen=$(PYTHONPATH="$folder" python3 "$folder/leave.py" 2>/dev/null)
echo "$seen"
[ "$(grep -o '[0-9] threads' <<< "$seen" | cut -c1 | paste -sd' ')" = "0 3 0" ]
