"""What the peers in Python share: a repetition for each line on standard input, a JSON line for each; and generation."""

import argparse
import json
import sys
import time


def arguments(description):
    """Those of a program that times generation."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write, the one that comes with the prompt included")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--paced", action="store_true", help="wait for a line on standard input before each repetition")
    return parser


def prompts(args, vocab):
    """The ids that `shaderlm bench generate` has as prompts, a list a row."""
    return [[(row * 7919 + i * 104_729) % vocab for i in range(args.prompt_tokens)] for row in range(args.batch)]


def generation(args, about, start, advance, read, wait=lambda: None, warm_up=2):
    """Times greedy generation. `start()` reads the prompts and gives the first tokens, `advance(tokens)` the next ones, `read(tokens)` a
    list of numbers; `wait` is called where the clock is read."""

    def once():
        begin = time.perf_counter()
        tokens = [start()]
        wait()
        first, cpu = time.perf_counter(), time.process_time()
        while len(tokens) < args.tokens:
            tokens.append(advance(tokens[-1]))
        ids = [read(token) for token in tokens]
        end, cpu = time.perf_counter(), time.process_time() - cpu
        return {
            "ms": (end - begin) * 1e3,
            "first_token_ms": (first - begin) * 1e3,
            "prompt_tokens_per_s": args.batch * args.prompt_tokens / (first - begin),
            "decode_tokens_per_s": args.batch * (len(tokens) - 1) / (end - first),
            # Of all threads: what a software adapter or a CPU takes, even where others use the machine.
            "cpu_ms_a_token": cpu * 1e3 / max(len(tokens) - 1, 1),
            "ids": [row[0] for row in ids],
        }

    for _ in range(warm_up):
        once()
    print(json.dumps({**about, "what": "generate", "ready": args.paced}), flush=True)
    for _ in range(args.repeats):
        if args.paced and not sys.stdin.readline():
            break
        print(json.dumps({**about, "what": "generate", **once()}), flush=True)
