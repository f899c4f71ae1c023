#!/bin/sh
# shaderlm beside forge-ml, in turn on this machine; the table goes to benches/RESULTS.md as well. Further arguments go to side_by_side.py.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --bin shaderlm --bench matmul --bench attention --bench train_step
cargo build --release --locked --manifest-path benches/peers/forge-ml/Cargo.toml
python3 benches/peers/side_by_side.py --engines shaderlm,forge-ml --tasks forward,train --append benches/RESULTS.md "$@"
