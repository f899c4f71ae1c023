#!/bin/sh
# On a GPU machine: ceilings, the training step of GPT-2 124M by kernel in f32 and mixed, shaderlm beside PyTorch CUDA (f32, TF32, bf16,
# compiled), products, attention, and the kernel tests, in some six minutes; generation by weights, batch and size, and beside
# transformers with its static cache, compiled, in some six more. The programs are carried there: `benches/peers/pack.sh` makes them, on a
# machine with Rust, for the same kind of processor.
#
#   [PARTS="training generation"] benches/peers/gpu.sh [FOLDER OF PROGRAMS] [FOLDER OF RESULTS]
#                                                                default: target/carried, and $OUT or gpu-results
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
# The training step by kernel.
step() { precision="$1"; seconds="$2"; part "step_$precision" "$seconds" "$BIN/train_step" --model gpt2-124m --context 1024 --batch 8 \
  --mode train --profile --precision "$precision"; }

{ nvidia-smi -L; nvidia-smi --query-gpu=driver_version,clocks.max.sm --format=csv,noheader; "$BIN/shaderlm" devices; uname -srm; } >>"$LOG" 2>&1
training() {
  step f32 60
  step mixed 100
  compare side_124m 110 torch-cuda-tf32,torch-cuda-bf16,torch-compiled-cuda-bf16 --tasks train,forward --vocab 50257 --context 1024 \
    --width 768 --layers 12 --heads 12 --batch 8
  compare side_products 60 torch-cuda,torch-cuda-bf16 --tasks matmul,attention --matmuls 4096,4096,4096,nn 4096,4096,4096,nt \
    --attentions 8,1024,768,12
  part recompute 40 "$BIN/train_step" --model gpt2-124m --context 1024 --batch 8 --mode train --recompute --precision mixed
  part attention 20 "$BIN/attention" --model gpt2-124m --lengths 1024,4096 --max-length 4096 --batch 4
  part memory_bound 20 "$BIN/memory_bound" --model gpt2-124m --rows 8192
  [ ! -x "$BIN/kernels" ] || part tests 60 "$BIN/kernels" --include-ignored attention cooperative embedding layer_norm matmul mixed optimizer reduce tune
}
generate() {
  name="$1"; seconds="$2"; shift 2
  part "generate_$name" "$seconds" "$BIN/shaderlm" bench generate "$@"
}
beside_transformers() {
  batch="$1"
  part "side_generation_b$batch" 200 "$PYTHON" benches/peers/generation.py --bin "$BIN" --python "$PYTHON" --commit "$COMMIT" --size gpt2-124m \
    --batch "$batch" --tokens 200 --repeats 5 --patience 120 --contenders shaderlm:f16,torch-cuda:f16,torch-static-cuda:f16 \
    --json "$RESULTS/side_generation_b$batch.json"
}
generation() {
  for weights in f16 f32 q8 q4; do
    for batch in 1 16; do
      generate "${weights}_b$batch" 25 --size gpt2-124m --weights $weights --tokens 200 --batch $batch
    done
  done
  generate f16_prompt_512 25 --size gpt2-124m --weights f16 --prompt-tokens 512 --tokens 64
  generate 1.5b_f16 60 --size gpt2-1.5b --weights f16 --tokens 100
  beside_transformers 1
  beside_transformers 16
}

part ceilings 40 "$BIN/shaderlm" bench ceilings
for group in ${PARTS:-training generation}; do
  case $group in
    training|generation) $group ;;
    *) echo "gpu.sh: PARTS: $group is not training or generation" >&2; exit 1 ;;
  esac
done
cp "$SHADERLM_CACHE"/tuning-*.json "$RESULTS" 2>/dev/null
exit $failed
