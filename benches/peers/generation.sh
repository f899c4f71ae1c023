#!/bin/sh
# Generation by shaderlm, llama.cpp (Vulkan and CPU), burn and transformers' CPU in turn, all with the same random GPT-2 124M; the table goes to
# benches/RESULTS.md as well. Further arguments go to generation.py. The first time it builds llama.cpp and burn, some half an hour on two
# cores. PYTHON is one that has torch and transformers (`make python` makes target/venv).
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --locked --manifest-path benches/peers/burn/Cargo.toml
exec benches/peers/llama-cpp.sh --python "${PYTHON:-target/venv/bin/python}" "$@"
