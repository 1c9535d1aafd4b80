#!/usr/bin/env bash
# torch.compile takes kernels out of its cache that were made for another instruction set, and fails to compile them.
#
# Versions: torch 2.13.0 (CPU), numpy 2.4.6, Python 3.11, g++ 12; a processor with AVX2 or AVX-512.
# Behaviour: ATEN_CPU_CAPABILITY=default tells torch to use no vector instructions, and inductor then writes plain loops.
#   The key of its graph cache does not know of that setting: a function that was compiled natively before, in another
#   process, comes out of the cache with its vectorised source, which does not compile without vectors. With a cache of
#   its own (TORCHINDUCTOR_CACHE_DIR) the same function compiles.
# Source: torch/_inductor/codecache.py, FxGraphHashDetails, which lists what the key is made of;
#   torch/_inductor/cpu_vec_isa.py, pick_vec_isa, which reads the setting.
# Output seen:
#   native: ok
#   default, same cache: CppCompileError
#   default, cache of its own: ok
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" torch==2.13.0 numpy==2.4.6
cat > "$folder/double.py" <<'PY'
import torch

try:
    torch.compile(lambda x: (x * 2).sin())(torch.ones(64, 64))
    print("ok")
except Exception as error:
    print(next(word for word in ("CppCompileError", type(error).__name__) if word in str(error) or word == type(error).__name__))
PY
run() { PYTHONPATH="$folder" TORCHINDUCTOR_CACHE_DIR="$folder/$1" python3 "$folder/double.py" 2>/dev/null; }
native=$(run cache)
same=$(ATEN_CPU_CAPABILITY=default run cache)
own=$(ATEN_CPU_CAPABILITY=default run another)
printf 'native: %s\ndefault, same cache: %s\ndefault, cache of its own: %s\n' "$native" "$same" "$own"
[ "$native" = ok ] && [ "$own" = ok ] && [ "$same" = CppCompileError ]
