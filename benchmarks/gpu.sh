#!/usr/bin/env bash
# On a machine with a GPU: time the ablation against the plain way, then run it on Apple leaves at full size.
#
#     benchmarks/gpu.sh PLANTVILLAGE OUT [MINUTES] [WORKERS]
#
# PLANTVILLAGE needs to hold the four Apple classes only (38 MB). Random ResNet34 weights do for timing; the runs use the default network,
# whose weights come with a package. The runs stop after MINUTES (8) and are packed as OUT/ablation.tgz; unpacked into OUT they are gone on
# with by the same call. OUT/ablation.csv and OUT/ablation-epochs.csv are there when all are done.
set -euo pipefail
data=$1 out=$2 minutes=${3:-8} workers=${4:-4}
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD
apple=(--majority Apple___healthy --minority 'Apple___*')
mkdir -p "$out"
python3 benchmarks/ablation.py "$data" "${apple[@]}" --arch resnet34 --weights random --workers "$workers" --write | tee "$out/benchmark.txt"
cp benchmarks/ablation-*.csv "$out"
timeout "${minutes}m" python3 -c 'from bn_imbalance.cli import bn_ablate; bn_ablate.cli()' "$data" "${apple[@]}" --size 224 \
    --workers "$workers" --device cuda --out "$out/ablation" || echo "not done yet, or failed: $?"
tar -czf "$out/ablation.tgz" -C "$out" ablation
for f in results:ablation epochs:ablation-epochs; do
    if [ -e "$out/ablation/${f%%:*}.csv" ]; then cp "$out/ablation/${f%%:*}.csv" "$out/${f##*:}.csv"; fi
done
