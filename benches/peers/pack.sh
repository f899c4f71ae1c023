#!/bin/sh
# Builds our programs, the kernel tests and the peers ($PEERS, else all that are Rust), and puts them, stripped, into the folder that is
# named (default target/carried), for a machine that has a GPU but no Rust. A peer that does not build is left out, and said so. The
# tests look for their fixtures where this checkout is: unpack it in the same place there.
set -eu
cd "$(dirname "$0")/../.."
OUT="${1:-target/carried}"
mkdir -p "$OUT"
cargo build --release --bin shaderlm --benches
cargo test --release --test kernels --no-run
for bench in matmul attention memory_bound train_step kernels; do
  newest=$(ls -t target/release/deps/$bench-* | grep -v '\.d$' | head -n 1)
  strip -o "$OUT/$bench" "$newest"
done
strip -o "$OUT/shaderlm" target/release/shaderlm
for peer in ${PEERS-burn meganeura forge-ml}; do
  if cargo build --release --locked --manifest-path benches/peers/$peer/Cargo.toml; then
    strip -o "$OUT/peer-$peer" benches/peers/$peer/target/release/peer-$peer
  else
    echo "pack.sh: $peer does not build and is left out" >&2
  fi
done
git rev-parse --short HEAD > "$OUT/commit"
du -sh "$OUT"
