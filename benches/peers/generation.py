"""Runs shaderlm and other engines that generate text with the same GPT-2 in turn, and prints a table; --append adds it to RESULTS.md.

    python3 benches/peers/generation.py [--files FOLDER | --size gpt2-124m] [--contenders shaderlm:f32,burn:f32,torch:f32] [--tokens 24] ...

Greedy, a prompt of ids. Every peer is a program that stays loaded, warmed up, and waits for a line before each repetition; shaderlm's is
`shaderlm bench generate --json`, started anew for each, which warms up by itself. FOLDER is what weights.py wrote: all read the same
numbers, and the table says how many of the first tokens are those that shaderlm writes with the same weights. Without it each engine has
random weights of its own.

A contender is ENGINE:WEIGHTS. Engines: shaderlm, llama-vulkan, llama-cpu (need --files and --llama-python), burn (burn-fused with its own attention
operation), torch with any of -static (static cache, compiled), -cuda appended. Weights: f32, f16, bf16, q8, q4, as far as the engine has them.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True

from paced import prompts
from side_by_side import HERE, Contender, Report, machine, options, output, peer, shaderlm

CONTENDERS = [
    "shaderlm:f32", "llama-vulkan:f32", "burn:f32", "torch:f32", "torch-static:f32", "llama-cpu:f32",
    "shaderlm:f16", "llama-vulkan:f16", "burn:f16", "torch:bf16", "torch-static:bf16", "llama-cpu:f16",
    "shaderlm:q8", "llama-vulkan:q8", "llama-cpu:q8",
    "shaderlm:q4", "llama-vulkan:q4", "llama-cpu:q4",
]
ON_ADAPTER = ("llama-vulkan", "burn", "burn-fused")


class Ours(Contender):
    """`shaderlm bench generate`, which measures once and ends."""

    def __init__(self, line):
        self.engine, self.line, self.lines, self.failed = "shaderlm", line, [], None

    def start(self, patience):
        self.run(patience)  # pipelines into their cache, the file into the system's

    def run(self, patience=None):
        try:
            done = subprocess.run(self.line, capture_output=True, text=True, timeout=patience)
        except (OSError, subprocess.TimeoutExpired) as error:
            self.failed = str(error)
            return None
        if done.returncode:
            self.failed = (done.stderr.strip() or f"ended with code {done.returncode}").splitlines()[-1]
            return None
        found = json.loads(done.stdout)
        return {**found["measured"][0], "device": found["device"]}

    def repeat(self):
        if not self.failed and (line := self.run()):
            self.lines.append(line)

    def end(self):
        pass


def contender(args, engine, weights):
    how = ["--prompt-tokens", str(args.prompt_tokens), "--tokens", str(args.tokens), "--batch", str(args.batch)]
    gguf = args.files and os.path.join(args.files, f"{weights}.gguf")
    if engine == "shaderlm":
        model = ["--model", gguf] if gguf else ["--size", args.size, "--weights", weights]
        return Ours([shaderlm(args), "bench", "generate", "--json", *model, *how])
    how += ["--paced", "--repeats", str(args.repeats)]
    if engine in ("llama-vulkan", "llama-cpu"):
        if not gguf or not args.llama_python:
            raise SystemExit(f"{engine} needs --files and --llama-python")
        device = engine.removeprefix("llama-")
        return Contender(engine, [args.llama_python, f"{HERE}/llama-cpp/peer.py", "--model", gguf, "--device", device, *how])
    if engine.startswith("burn"):
        if args.batch != 1 or not args.files:
            raise SystemExit("burn needs --files, and writes one text at a time")
        with open(os.path.join(args.files, "config.json")) as file:
            config = json.load(file)
        names = {"vocab": "vocab_size", "context": "n_positions", "width": "n_embd", "layers": "n_layer", "heads": "n_head"}
        shape = [part for flag, name in names.items() for part in (f"--{flag}", str(config[name]))]
        file = os.path.join(args.files, "model.safetensors")
        attention = "fused" if engine == "burn-fused" else "plain"
        start = [peer(args, "burn"), "--mode", "generate", "--gelu", "tanh", "--attention", attention]
        return Contender(engine, [*start, "--type", weights, "--weights", file, *shape, *how])
    if engine.startswith("torch"):
        flags = {"static": ["--static"], "cuda": ["--device", "cuda"]}
        more = [part for flag in engine.split("-")[1:] for part in flags[flag]]
        model = ["--model", args.files] if args.files else ["--size", args.size]
        return Contender(engine, [args.python, f"{HERE}/torch/generate.py", "--type", weights, *model, *more, *how])
    raise SystemExit(f"--contenders: {engine} is not known")


def own_text(args, weights):
    """The ids that shaderlm writes with these weights, or nothing where they are in no file."""
    gguf = args.files and os.path.join(args.files, f"{weights}.gguf")
    if not gguf or not os.path.exists(gguf):
        return None
    with open(os.path.join(args.files, "config.json")) as file:
        vocab = json.load(file)["vocab_size"]
    ids = ",".join(str(id) for row in prompts(argparse.Namespace(batch=1, prompt_tokens=args.prompt_tokens), vocab) for id in row)
    said = output(shaderlm(args), "generate", "--model", gguf, "--ids", ids, "--max-tokens", str(args.tokens), "--temperature", "0", "--json")
    return json.loads(said)["ids"] if said else None


def median(contender, field):
    return statistics.median(line[field] for line in contender.lines)


def row(c, weights, ours, text):
    """A contender's line of the table; `ours` are shaderlm's tokens a second with the same weights."""
    if c.failed or not c.lines:
        return f"| {c.engine} | {weights} | | did not run: {c.failed} | | | | | |"
    rates = [line["decode_tokens_per_s"] for line in c.lines]
    rate = statistics.median(rates)
    same = ""
    if text and "ids" in c.lines[0]:
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, c.lines[0]["ids"])))
        same = f"{common} of {len(text)}"
    ratio = f"{ours / rate:.2f}" if ours and c.engine != "shaderlm" else ""
    where = (c.lines[0].get("device") or c.lines[0].get("adapter") or "").split(" (")[0]
    times = f"{median(c, 'prompt_tokens_per_s'):.0f} | {median(c, 'first_token_ms'):.0f}"
    return f"| {c.engine} | {weights} | {where} | {rate:.2f} | {min(rates):.2f} to {max(rates):.2f} | {times} | {same} | {ratio} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", default=",".join(CONTENDERS), metavar="ENGINE:WEIGHTS,..")
    parser.add_argument("--files", help="the folder that weights.py wrote")
    parser.add_argument("--size", default="gpt2-124m", help="random weights, where there is no --files")
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24, help="the one that comes with the prompt included")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--llama-python", help="the Python that has llama-cpp-python, for llama-vulkan and llama-cpu")
    parser.add_argument("--patience", type=float, help="seconds that a contender may warm up for")
    options(parser, repeats=5)
    args = parser.parse_args()
    named = [tuple(name.rsplit(":", 1)) for name in args.contenders.split(",")]
    if wrong := next((":".join(name) for name in named if len(name) != 2), None):
        raise SystemExit(f"--contenders: {wrong} is not ENGINE:WEIGHTS")
    report, engines = Report(), [engine for engine, _ in named]
    facts = machine(args, engines)
    if "torch" in " ".join(engines):
        facts += "; transformers " + output(args.python, "-c", "import transformers; print(transformers.__version__)")
    if "llama" in " ".join(engines):
        facts += "; llama-cpp-python " + output(args.llama_python, "-c", "import llama_cpp; print(llama_cpp.__version__)")
    model = "GPT-2 124M, the same random weights for all" if args.files else f"{args.size}, random weights"
    report.say(f"### Generation side by side, batch {args.batch}\n")
    report.say(f"{facts}. {model}; a prompt of {args.prompt_tokens}, {args.tokens} tokens, greedy; {args.repeats} repetitions, in turn; medians.\n")
    report.say("| engine | weights | on | decoding, tokens/s | least to most | prompt, tokens/s | first token, ms | first tokens as shaderlm's | shaderlm / it |")
    report.say("|---|---|---|---|---|---|---|---|---|")
    # One after another: what they warm up with would disturb each other's choice of kernels.
    racing = []
    for engine, weights in named:
        print(f"{engine} {weights}: warming up", file=sys.stderr, flush=True)
        racing.append((contender(args, engine, weights), weights))
        racing[-1][0].start(args.patience)
    for _ in range(args.repeats):
        for c, _ in racing:
            c.repeat()
    rates = {(c.engine, w): median(c, "decode_tokens_per_s") for c, w in racing if c.lines}
    texts = {w: own_text(args, w) for w in {w for _, w in racing}}
    for c, weights in racing:
        c.end()
        # Nothing but transformers has bf16 here.
        ours = rates.get(("shaderlm", weights)) or (rates.get(("shaderlm", "f16")) if weights == "bf16" else None)
        report.say(row(c, weights, ours, texts[weights]))
    report.say("")
    for weights in dict.fromkeys(w for _, w in racing):
        on_adapter = {engine: rate for (engine, w), rate in rates.items() if w == weights and engine in ON_ADAPTER}
        if on_adapter and (ours := rates.get(("shaderlm", weights))):
            best = max(on_adapter, key=on_adapter.get)
            report.say(f"- {weights}: {ours / on_adapter[best]:.2f} times the tokens/s of the best peer on the same adapter, {best}")
    found = [{"engine": c.engine, "weights": w, "failed": c.failed, "measured": c.lines} for c, w in racing]
    report.keep(args, facts, found)


main()
