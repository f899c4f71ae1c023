"""Runs shaderlm and burn side by side on one adapter, a repetition of each in turn, and prints a table.

    cargo build --release --bench train_step --bench encoder
    cargo build --release --locked --manifest-path benches/peers/burn/Cargo.toml
    python3 benches/peers/alternate.py [--bench train_step|encoder] [--repeats 7] [--ours PROGRAM] [--burn PROGRAM]
        [--modes forward,train]

`train_step` is a GPT-2 of batch 4 x 128, `encoder` a BERT of batch 8 x 128.

Both programs wait for a line on standard input before each repetition, so that neither has the machine to itself for
longer and a slow minute hits both.
"""

import argparse
import os
import platform
import statistics

from side_by_side import HERE, ROOT, Contender, newest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--bench", choices=["train_step", "encoder"], default="train_step")
    parser.add_argument("--ours", help="our benchmark's program; by default the one built last")
    parser.add_argument("--burn", default=f"{HERE}/burn/target/release/peer-burn")
    parser.add_argument("--modes", default="forward,train")
    args = parser.parse_args()
    ours = args.ours or newest(f"{ROOT}/target/release/deps/{args.bench}-*")
    # burn's program knows both models: a prefix to its modes, and the encoder's batch.
    prefix, batch = ("encoder-", "8") if args.bench == "encoder" else ("", "4")
    print(f"{platform.machine()}, {os.cpu_count()} CPUs; {args.repeats} repetitions of each in turn; ms")
    print("| mode | engine | median | fastest | slowest |\n|---|---|---|---|---|")
    for mode in args.modes.split(","):
        common = ["--batch", batch, "--repeats", str(args.repeats), "--paced"]
        contenders = [
            Contender("shaderlm", [ours, "--mode", mode, *common]),
            Contender("burn", [args.burn, "--mode", prefix + mode, *common]),
        ]
        for contender in contenders:
            contender.start()
        for _ in range(args.repeats):
            for contender in contenders:
                contender.repeat()
        for contender in contenders:
            contender.end()
            if contender.failed:
                raise SystemExit(f"{contender.engine}: {contender.failed}")
            t = contender.times
            print(f"| {mode} | {contender.engine} | {statistics.median(t):.0f} | {min(t):.0f} | {max(t):.0f} |")
        ratio = statistics.median(contenders[0].times) / statistics.median(contenders[1].times)
        print(f"| {mode} | shaderlm / burn | {ratio:.2f} | | |", flush=True)


main()
