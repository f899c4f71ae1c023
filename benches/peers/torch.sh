#!/bin/sh
# shaderlm, on the adapter and on the CPU, beside PyTorch's CPU (eager, and compiled where there is a C++ compiler) and candle's, in turn.
# PYTHON is one that has torch (`make python` makes target/venv). Further arguments go to side_by_side.py.
set -eu
cd "$(dirname "$0")/../.."
PYTHON="${PYTHON:-target/venv/bin/python}"
cargo build --release --bin shaderlm --bench matmul --bench attention --bench train_step
engines=shaderlm,shaderlm-cpu,torch
if command -v c++ >/dev/null; then engines=$engines,torch-compiled; fi
if [ -x benches/peers/candle/target/release/peer-candle ]; then engines=$engines,candle; fi
python3 benches/peers/side_by_side.py --engines "$engines" --python "$PYTHON" --append benches/RESULTS.md "$@"
