#!/bin/sh
# On a GPU machine, in one go of some six minutes: ceilings, the training step of GPT-2 124M by kernel in f32 and mixed, shaderlm beside
# PyTorch CUDA (f32, TF32, bf16, compiled), products, generation, attention, and the kernel tests. The programs are carried there:
# `benches/peers/pack.sh` makes them, on a machine with Rust, for the same kind of processor.
#
#   benches/peers/gpu.sh [FOLDER OF PROGRAMS] [FOLDER OF RESULTS]        default: target/carried, and $OUT or gpu-results
#
# PYTHON is one that has torch with CUDA (default python3). Parts that fail, or take too long, do not stop the rest; their errors are in
# log.txt. The most telling come first. Peers that are Rust programs run beside it if ENGINES names them (ENGINES=burn,meganeura).
set -u
cd "$(dirname "$0")/../.."
BIN=$(cd "${1:-target/carried}" && pwd) || exit 1
RESULTS="${2:-${OUT:-gpu-results}}"
PYTHON="${PYTHON:-python3}"
mkdir -p "$RESULTS"
LOG="$RESULTS/log.txt"
COMMIT=$(cat "$BIN/commit" 2>/dev/null || echo unknown)
# Every kernel that could be taken is measured, once.
export SHADERLM_AUTOTUNE=full
export SHADERLM_CACHE="${SHADERLM_CACHE:-$RESULTS/cache}"
failed=0

# Runs a part at most so many seconds, and goes on whatever comes of it.
part() {
  name="$1"; seconds="$2"; shift 2
  begin=$(date +%s)
  timeout "$seconds" "$@" >"$RESULTS/$name.txt" 2>>"$LOG"
  code=$?
  echo "== $name: $(($(date +%s) - begin)) s, code $code"
  cut -c 1-150 "$RESULTS/$name.txt" | head -n 40
  [ $code = 0 ] || failed=1
}
compare() {
  name="$1"; seconds="$2"; engines="$3"; shift 3
  part "$name" "$seconds" "$PYTHON" benches/peers/side_by_side.py --bin "$BIN" --python "$PYTHON" --commit "$COMMIT" \
    --repeats 5 --engines "shaderlm,shaderlm-mixed,$engines${ENGINES:+,$ENGINES}" --json "$RESULTS/$name.json" "$@"
}
step() { precision="$1"; seconds="$2"; part "step_$precision" "$seconds" "$BIN/train_step" --model gpt2-124m --context 1024 --batch 8 \
  --mode train --profile --precision "$precision"; }

{ nvidia-smi -L; nvidia-smi --query-gpu=driver_version,clocks.max.sm --format=csv,noheader; "$BIN/shaderlm" devices; uname -srm; } >>"$LOG" 2>&1
part ceilings 40 "$BIN/shaderlm" bench ceilings
step f32 60
step mixed 100
compare side_124m 110 torch-cuda-tf32,torch-cuda-bf16,torch-compiled-cuda-bf16 --tasks train,forward --vocab 50257 --context 1024 \
  --width 768 --layers 12 --heads 12 --batch 8
compare side_products 60 torch-cuda,torch-cuda-bf16 --tasks matmul,attention --matmuls 4096,4096,4096,nn 4096,4096,4096,nt \
  --attentions 8,1024,768,12
for weights in f32 f16 q8; do
  part "generate_$weights" 25 "$BIN/shaderlm" bench generate --size gpt2-124m --weights $weights --tokens 200
done
part attention 20 "$BIN/attention" --model gpt2-124m --lengths 1024,4096 --max-length 4096 --batch 4
part memory_bound 20 "$BIN/memory_bound" --model gpt2-124m --rows 8192
[ ! -x "$BIN/kernels" ] || part tests 60 "$BIN/kernels" --include-ignored attention cooperative matmul mixed optimizer reduce tune
cp "$SHADERLM_CACHE"/tuning-*.json "$RESULTS" 2>/dev/null
exit $failed
