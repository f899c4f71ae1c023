#!/bin/sh
# Everything on a GPU machine, in one go: ceilings, our benchmarks, and shaderlm beside PyTorch CUDA (eager and compiled, TF32 off
# and on, bf16), burn, meganeura and forge-ml. The programs are carried there: `benches/peers/pack.sh` makes them, on a machine
# with Rust, for the same kind of processor.
#
#   benches/peers/gpu.sh [FOLDER OF PROGRAMS] [FOLDER OF RESULTS]        default: target/carried, and $OUT or gpu-results
#
# PYTHON is one that has torch with CUDA (default python3). Parts that fail do not stop the rest; their errors are in log.txt.
set -u
cd "$(dirname "$0")/../.."
BIN=$(cd "${1:-target/carried}" && pwd) || exit 1
RESULTS="${2:-${OUT:-gpu-results}}"
PYTHON="${PYTHON:-python3}"
mkdir -p "$RESULTS"
LOG="$RESULTS/log.txt"
COMMIT=$(cat "$BIN/commit" 2>/dev/null || echo unknown)
failed=0

# Runs a part at most so many seconds, and goes on whatever comes of it.
part() {
  name="$1"; seconds="$2"; shift 2
  echo "== $name: $*" | tee -a "$LOG"
  timeout "$seconds" "$@" 2>>"$LOG" | tee -a "$RESULTS/$name.txt"
  if [ ! -s "$RESULTS/$name.txt" ]; then echo "== $name: nothing; see $LOG" | tee -a "$LOG"; failed=1; fi
}

{ nvidia-smi -L; nvidia-smi --query-gpu=driver_version,clocks.max.sm --format=csv,noheader; "$BIN/shaderlm" devices; uname -srm; } >>"$LOG" 2>&1
part ceilings 120 "$BIN/shaderlm" bench ceilings
part matmul 300 "$BIN/matmul" --squares 256,512,1024,2048,4096 --model gpt2-124m,gpt2-355m,albert-base,electra-small --rows 8192 \
  --json "$RESULTS/matmul.json" --plot "$RESULTS/matmul.svg"
part attention 300 "$BIN/attention" --lengths 128,256,512,1024,2048,4096 --max-length 4096 --batch 4 \
  --json "$RESULTS/attention.json" --plot "$RESULTS/attention.svg"
part memory_bound 200 "$BIN/memory_bound" --model gpt2-124m,gpt2-355m,albert-base,electra-small --rows 512,2048,8192 \
  --json "$RESULTS/memory_bound.json" --plot "$RESULTS/memory_bound.svg"
part train_step 300 "$BIN/train_step" --model gpt2-124m --context 1024 --batch 1,2,4,8 --json "$RESULTS/train_step.json" \
  --plot "$RESULTS/train_step.svg"
part profile 200 "$BIN/train_step" --model gpt2-124m --context 1024 --batch 8 --mode train --profile
for model in albert-base electra-small; do
  part "encoder_$model" 200 "$BIN/encoder" --model $model --context 512 --batch 1,4,16 --json "$RESULTS/encoder_$model.json" \
    --plot "$RESULTS/encoder_$model.svg"
done

CUDA=torch-cuda,torch-cuda-tf32,torch-cuda-bf16,torch-compiled-cuda,torch-compiled-cuda-tf32,torch-compiled-cuda-bf16
compare() {
  name="$1"; shift
  part "$name" 900 "$PYTHON" benches/peers/side_by_side.py --bin "$BIN" --python "$PYTHON" --commit "$COMMIT" \
    --json "$RESULTS/$name.json" "$@"
}
compare side_matmul --engines "shaderlm,$CUDA,burn,meganeura" --tasks matmul \
  --matmuls 1024,1024,1024,nn 4096,4096,4096,nn 8192,2304,768,nn 8192,768,3072,nn 8192,50257,768,nt
compare side_attention --engines "shaderlm,$CUDA" --tasks attention --attentions 8,1024,768,12 8,1024,1024,16 1,4096,768,12 32,128,256,4
compare side_small --engines "shaderlm,$CUDA,burn,forge-ml" --tasks forward,train
compare side_124m --engines "shaderlm,$CUDA" --tasks forward,train --vocab 50257 --context 1024 --width 768 --layers 12 --heads 12 --batch 8
cat "$RESULTS"/side_*.txt > "$RESULTS/side_by_side.md"
echo "tables to add to benches/RESULTS.md: $RESULTS/side_by_side.md; commit $COMMIT"
exit $failed
