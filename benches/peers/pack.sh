#!/bin/sh
# Builds our programs and the peers, and puts them, stripped, into the folder that is named (default target/carried), for a
# machine that has a GPU but no Rust. A peer that does not build is left out, and said so.
set -eu
cd "$(dirname "$0")/../.."
OUT="${1:-target/carried}"
mkdir -p "$OUT"
cargo build --release --bin shaderlm --benches
for bench in matmul attention memory_bound train_step encoder electra; do
  newest=$(ls -t target/release/deps/$bench-* | grep -v '\.d$' | head -n 1)
  strip -o "$OUT/$bench" "$newest"
done
strip -o "$OUT/shaderlm" target/release/shaderlm
for peer in burn meganeura forge-ml; do
  if cargo build --release --locked --manifest-path benches/peers/$peer/Cargo.toml; then
    strip -o "$OUT/peer-$peer" benches/peers/$peer/target/release/peer-$peer
  else
    echo "pack.sh: $peer does not build and is left out" >&2
  fi
done
git rev-parse --short HEAD > "$OUT/commit"
du -sh "$OUT"
