#!/bin/sh
# Builds shaderlm's benchmarks and the peer PEER, and runs both in turn on this machine; the table goes to benches/RESULTS.md as well.
# Further arguments go to side_by_side.py.
#
#   benches/peers/beside.sh PEER [--tasks ...] ...
set -eu
cd "$(dirname "$0")/../.."
peer="$1"; shift
cargo build --release --bin shaderlm --bench matmul --bench attention --bench train_step
cargo build --release --locked --manifest-path "benches/peers/$peer/Cargo.toml"
python3 benches/peers/side_by_side.py --engines "shaderlm,$peer" --append benches/RESULTS.md "$@"
