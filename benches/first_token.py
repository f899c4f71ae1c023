"""Times a shaderlm binary from its start to its first token, and its reading and writing speed.

    cargo build --release
    python3 benches/first_token.py [--repeats 9] [--program PROGRAM] [-- more arguments of generate, such as --model DIR]

The first run, which fills the pipeline cache, is not counted. Prints medians with the fastest and slowest run.
"""

import argparse
import os
import re
import statistics
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROMPT = "ROMEO:\nShall I hear more, or shall I speak at this?\n\nJULIET:\n"


def run(program, more, tokens):
    """Wall time of one run, seconds, and what --stats printed."""
    command = [program, "generate", PROMPT, "--max-tokens", str(tokens), "--seed", "1", "--stats", *more]
    start = time.perf_counter()
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    seconds = time.perf_counter() - start
    if result.returncode:
        raise SystemExit(result.stderr.strip())
    return seconds, result.stderr


def line(what, values, unit):
    print(f"| {what} | {statistics.median(values):.2f} {unit} | {min(values):.2f} | {max(values):.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--program", default=f"{ROOT}/target/release/shaderlm")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of the run that measures decoding")
    parser.add_argument("more", nargs="*", help="further arguments of generate, after --")
    args = parser.parse_args()
    _, stats = run(args.program, args.more, args.tokens)
    print(stats.splitlines()[0])
    first = [run(args.program, args.more, 1)[0] for _ in range(args.repeats)]
    prompt, decode = [], []
    for _ in range(args.repeats):
        _, stats = run(args.program, args.more, args.tokens)
        prompt.append(float(re.search(r"prompt .*?, ([\d.]+) tokens/s", stats)[1]))
        decode.append(float(re.search(r"decode .*?, ([\d.]+) tokens/s", stats)[1]))
    print("| figure | median | least | most |\n|---|---|---|---|")
    line("start to first token, whole process", first, "s")
    line("prompt, with the first token and its plan", prompt, "tokens/s")
    line("decoding", decode, "tokens/s")


main()
