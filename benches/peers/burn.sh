#!/bin/sh
# shaderlm beside burn, in turn on this machine; the table goes to benches/RESULTS.md as well. Further arguments go to side_by_side.py.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --bin shaderlm --bench matmul --bench attention --bench train_step
cargo build --release --locked --manifest-path benches/peers/burn/Cargo.toml
python3 benches/peers/side_by_side.py --engines shaderlm,burn --tasks matmul,forward,train --append benches/RESULTS.md "$@"
