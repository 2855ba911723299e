#!/usr/bin/env bash
# Everything that a machine with a GPU can tell, in about 8 minutes: the tests marked gpu, the limits, throughput and
# efficiency, GA3C against A3C on the device and on the cores, and the tuner's choice.
#   benchmarks/gpu.sh [DEVICE]      in the environment in which ga3c is installed; DEVICE is cuda unless you say otherwise
# What it measures lies in benchmarks/results/gpu/ afterwards. What fails is named at the end; the rest is measured.
set -uo pipefail
cd "$(dirname "$0")/.."
device=${1:-cuda}
out=benchmarks/results/gpu
mkdir -p "$out"
rm -rf "$out/compare" "$out/tune"
failed=()
step() { "$@" || failed+=("$1 $2 $3"); }

step python -m pytest -m gpu -q
step python benchmarks/throughput.py --device "$device" --seconds 16 --warm-up-s 8 --repeats 1 \
    --record "$out/throughput.jsonl"
step ga3c compare --device "$device" --modes a3c,ga3c --networks small,large --repeats 1 --warm-up-s 4 \
    --minutes-each 0.3 --out "$out/compare"
step ga3c tune --device "$device" --minutes 1.5 --out "$out/tune"
echo "all of it: $out"
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
