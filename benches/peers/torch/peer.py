"""Times PyTorch on the shapes that shaderlm's benchmarks use, a JSON line a repetition, for side_by_side.py.

    python3 benches/peers/torch/peer.py --mode forward|train|matmul|attention [--device cpu|cuda] [--compile] [--tf32] [--paced]

GPT-2 as its paper has it: learned positions, pre-LN blocks, causal scaled_dot_product_attention, tanh GELU, tied head;
f32, or with --bf16 in autocast; AdamW (fused where the device has it) after clipping to norm 1.
"""

import argparse
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.mlp_c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.c_proj(attend(self.c_attn(self.ln_1(x)), self.heads, True))
        return x + self.mlp_c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(args.vocab, args.width), nn.Embedding(args.context, args.width)
        self.blocks = nn.ModuleList(Block(args.width, args.heads) for _ in range(args.layers))
        self.ln_f = nn.LayerNorm(args.width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)


def attend(qkv, heads, causal):
    """[batch, time, 3 width] to [batch, time, width]."""
    batch, steps, triple = qkv.shape
    q, k, v = qkv.view(batch, steps, 3, heads, triple // 3 // heads).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return y.transpose(1, 2).reshape(batch, steps, triple // 3)


def product(args):
    m, n, k, layout = args.shape.split(",")
    m, n, k = int(m), int(n), int(k)
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    make = lambda rows, columns: torch.randn(rows, columns, device=args.device, dtype=dtype)
    a = make(k, m).t() if layout == "tn" else make(m, k)
    b = make(n, k).t() if layout == "nt" else make(k, n)
    f = torch.compile(torch.matmul) if args.compile else torch.matmul
    with torch.no_grad():
        yield
        while True:
            yield f(a, b)


def attention(args):
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    qkv = torch.randn(args.batch, args.context, 3 * args.width, device=args.device, dtype=dtype)
    qkv.requires_grad_(args.backward)
    f = torch.compile(attend) if args.compile else attend
    upstream = torch.randn(args.batch, args.context, args.width, device=args.device, dtype=dtype)
    with torch.set_grad_enabled(args.backward):
        yield
        while True:
            y = f(qkv, args.heads, args.causal)
            if args.backward:
                qkv.grad = None
                y.backward(upstream)
            yield y


def gpt2(args):
    model = Gpt2(args).to(args.device)
    run = torch.compile(model) if args.compile else model
    count = args.batch * args.context
    ids = (torch.arange(count) * 7919 % args.vocab).view(args.batch, args.context).to(args.device)
    mixed = torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.bf16)
    if args.mode == "forward":
        with torch.no_grad(), mixed:
            yield
            while True:
                yield run(ids)
    targets = (ids + 7919) % args.vocab
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
    yield
    while True:
        optimizer.zero_grad(set_to_none=True)
        with mixed:
            loss = F.cross_entropy(run(ids).flatten(0, 1).float(), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["forward", "train", "matmul", "attention"], default="forward")
    for name, value in [("vocab", 4096), ("context", 128), ("width", 256), ("layers", 4), ("heads", 4), ("batch", 4)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--shape", default="768,768,768,nn", help="M,N,K,nn|nt|tn of --mode matmul")
    parser.add_argument("--device", default="cpu")
    for flag in ["compile", "tf32", "bf16", "causal", "backward", "paced"]:
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
    work = {"matmul": product, "attention": attention}.get(args.mode, gpt2)(args)
    next(work)
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    for _ in range(3 if args.compile else 2):
        next(work)
    wait()
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(json.dumps({"what": args.mode, "ready": args.paced, "device": where, "torch": torch.__version__}), flush=True)
    for _ in range(args.repeats):
        if args.paced and not sys.stdin.readline():
            break
        start = time.perf_counter()
        value = next(work)
        wait()
        ms = (time.perf_counter() - start) * 1e3
        print(json.dumps({"what": args.mode, "ms": ms, "value": float(value.detach().flatten()[0])}), flush=True)


main()
