#!/usr/bin/env bash
# Everything that a machine with a GPU can tell, in about 8 minutes: the tests marked gpu, the limits, throughput and
# efficiency, GA3C against A3C on the device and on the cores, and the tuner's choice.
#   benchmarks/gpu.sh [DEVICE]      in an environment with ga3c[dev,compare]; DEVICE is cuda unless you say otherwise
# What it measures lies in benchmarks/results/gpu/ afterwards. What fails, or takes longer than it should, is named at
# the end; the rest is measured.
set -uo pipefail
cd "$(dirname "$0")/.."
device=${1:-cuda}
out=benchmarks/results/gpu
mkdir -p "$out"
rm -rf "$out/compare" "$out/tune"
failed=()
step() { # SECONDS COMMAND...
    timeout --foreground --signal=INT --kill-after=10 "$@" || failed+=("${*:2:4}")
}

step 150 python -m pytest -m gpu -q
step 180 python benchmarks/throughput.py --device "$device" --seconds 12 --warm-up-s 8 --repeats 1 \
    --record "$out/throughput.jsonl"
step 240 ga3c compare --device "$device" --modes a3c,ga3c --networks small,large --repeats 1 --warm-up-s 4 \
    --minutes-each 0.4 --out "$out/compare"
step 120 ga3c tune --device "$device" --minutes 1 --out "$out/tune"
echo "all of it: $out"
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
