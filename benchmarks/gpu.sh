#!/usr/bin/env bash
# Everything that a GPU has to show, on a fresh machine with Python 3.12, torch, numpy and h5py and nothing else, within
# 8 minutes: self-check of the engines, tests that need a device (where pytest is there), throughput, profiles.
#
#     benchmarks/gpu.sh gpu.json                          # on the GPU machine, from the checkout
#     python benchmarks/throughput.py --record gpu.json   # later, anywhere: into measured.json and docs/performance.md
#
# More options are those of benchmarks/on_gpu.py; `--device cpu --shapes a --lanes 1` tries the script without a GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
if [[ $# -eq 0 || $1 == -* ]]; then
    echo "usage: benchmarks/gpu.sh FILE.json [options of benchmarks/on_gpu.py]" >&2
    exit 2
fi
output=$1
shift
exec "${PYTHON:-python3}" benchmarks/on_gpu.py --output "$output" "$@"
