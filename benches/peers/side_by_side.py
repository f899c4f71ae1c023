"""Runs shaderlm and other engines in turn, a repetition of each, and prints tables; --append adds them to RESULTS.md.

    python3 benches/peers/side_by_side.py --engines shaderlm,candle,torch,torch-compiled \\
        [--tasks forward,train,matmul,attention] [--repeats 9] [--append benches/RESULTS.md] [--json FILE]

Every program waits for a line on standard input before each repetition, so that none has the machine to itself and a slow
minute hits all. An engine that does not start is in the table with the last line of what it said.

Engines: shaderlm (SHADERLM_DEVICE chooses its adapter), shaderlm-mixed (--precision mixed), shaderlm-cpu, burn, candle, meganeura, forge-ml, and torch with any of
-compiled, -cuda, -tf32, -bf16 appended, in this order (torch-compiled-cuda-tf32).
"""

import argparse
import datetime
import glob
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MATMULS = ["768,768,768,nn", "512,1024,256,nn", "512,256,1024,nt", "512,4096,256,nt", "256,1024,512,tn", "4096,256,512,tn"]
# batch, length, width, heads: GPT-2 124M and 355M, ELECTRA-small
ATTENTIONS = ["1,512,768,12", "1,512,1024,16", "4,128,256,4"]
SHAPE = {"vocab": 4096, "context": 128, "width": 256, "layers": 4, "heads": 4, "batch": 4}
PEERS = ["burn", "candle", "meganeura", "forge-ml"]


def newest(pattern):
    files = [f for f in glob.glob(pattern) if os.access(f, os.X_OK) and not f.endswith(".d")]
    return max(files, key=os.path.getmtime) if files else None


def program(args, name):
    """Our benchmark `name`, from --bin if that is given."""
    found = os.path.join(args.bin, name) if args.bin else newest(f"{ROOT}/target/release/deps/{name}-*")
    if not found or not os.path.exists(found):
        raise SystemExit(f"{name} is not built: cargo build --release --benches")
    return found


def peer(args, name):
    place = args.bin or f"{HERE}/{name}/target/release"
    return os.path.join(place, f"peer-{name}")


def command(args, engine, task, case):
    """The command line that does `case` of `task`, or None where the engine's program cannot."""
    shape = [part for name in SHAPE for part in (f"--{name}", str(getattr(args, name)))]
    if task == "attention":
        batch, length, width, heads = case.split(",")
        sizes = ["--batch", batch, "--context", length, "--width", width, "--heads", heads, "--causal"]
    if engine in ("shaderlm", "shaderlm-mixed", "shaderlm-cpu"):
        how = ["--paced", "--precision", "mixed" if engine == "shaderlm-mixed" else "f32"]
        if task == "matmul":
            return [program(args, "matmul"), case, *how]
        if task == "attention":
            sizes[2] = "--lengths"
            return [program(args, "attention"), *sizes, *how]
        return [program(args, "train_step"), "--mode", task, *shape, *how]
    common = ["--repeats", str(args.repeats), "--paced"]
    if engine.startswith("torch"):
        flags = engine.split("-")[1:]
        options = {"compiled": ["--compile"], "cuda": ["--device", "cuda"], "tf32": ["--tf32"], "bf16": ["--bf16"]}
        common += [part for flag in flags for part in options[flag]]
        start = [args.python, f"{HERE}/torch/peer.py"]
    elif engine in PEERS:
        start = [peer(args, engine)]
    else:
        raise SystemExit(f"--engines: {engine} is not known")
    if engine == "burn" and task == "matmul":
        m, n, k, layout = case.split(",")
        return [*start, "--mode", task, "--size", m, *common] if m == n == k and layout == "nn" else None
    if engine in ("burn", "meganeura", "forge-ml") and task == "attention":
        return None
    if engine == "forge-ml" and task == "matmul":
        return None
    if task == "matmul":
        return [*start, "--mode", task, "--shape", case, *common]
    return [*start, "--mode", task, *(sizes if task == "attention" else shape), *common]


class Contender:
    """A program that times one case, a repetition for each line that it is given."""

    def __init__(self, engine, line):
        self.engine, self.lines, self.failed = engine, [], None
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        env = dict(os.environ)
        if engine == "shaderlm-cpu":
            env["SHADERLM_DEVICE"] = "cpu"
        try:
            self.process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=env
            )
        except OSError as error:
            self.process, self.failed = None, str(error)

    @property
    def times(self):
        """Milliseconds of each repetition."""
        return [line["ms"] for line in self.lines]

    def read(self):
        """The next JSON line; None when the program has ended."""
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        said = [line for line in self.errors.read().splitlines() if line.strip()]
        panics = [line for line in said if "panicked" in line or "rror" in line]
        self.failed = (panics or said or [f"ended with code {self.process.returncode}"])[-1].strip()
        return None

    def start(self, patience=None):
        """Waits until it is warmed up, for `patience` seconds at most."""
        if self.failed:
            return
        timer = threading.Timer(patience or threading.TIMEOUT_MAX, self.process.kill)
        timer.daemon = True
        timer.start()
        while not self.failed:
            line = self.read()
            if line and line.get("ready"):
                break
        timer.cancel()
        if patience and self.process.poll() == -signal.SIGKILL:
            self.failed = f"not warmed up after {patience:.0f} s, or killed"

    def repeat(self):
        if self.failed:
            return
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # read() says that it has ended
        if line := self.read():
            self.lines.append(line)

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()


def quartiles(times):
    return statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [times[0]] * 3


def gflop(task, case):
    if task == "matmul":
        m, n, k = map(int, case.split(",")[:3])
        return 2 * m * n * k / 1e9
    if task == "attention":
        batch, length, width, _ = map(int, case.split(","))
        return 2 * 2 * batch * width * length * (length + 1) / 2 / 1e9
    return None


def side_by_side(args, task, case, say, found):
    lines = [(engine, command(args, engine, task, case)) for engine in args.engines.split(",")]
    contenders = [Contender(engine, line) for engine, line in lines if line]
    for contender in contenders:
        contender.start()
    for _ in range(args.repeats):
        for contender in contenders:
            contender.repeat()
    ours = next((statistics.median(c.times) for c in contenders if c.engine == "shaderlm" and c.times), None)
    for c in contenders:
        c.end()
        if c.failed or not c.times:
            say(f"| {task} {case} | {c.engine} | did not run: {c.failed} | | | |")
            found.append({"task": task, "case": case, "engine": c.engine, "failed": c.failed})
            continue
        first, median, third = quartiles(c.times)
        rate = f"{gflop(task, case) / median * 1e3:.1f}" if gflop(task, case) else ""
        ratio = f"{ours / median:.2f}" if ours and c.engine != "shaderlm" else ""
        say(f"| {task} {case} | {c.engine} | {median:.3g} | {first:.3g} to {third:.3g} | {rate} | {ratio} |")
        found.append({"task": task, "case": case, "engine": c.engine, "times_ms": c.times})


def output(*line):
    try:
        return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def shaderlm(args):
    return os.path.join(args.bin, "shaderlm") if args.bin else f"{ROOT}/target/release/shaderlm"


def machine(args, engines):
    """Adapter, driver, versions, commit, and how busy the machine is."""
    facts = [datetime.date.today().isoformat(), f"commit {args.commit or output('git', 'rev-parse', '--short', 'HEAD') or 'unknown'}"]
    if adapters := output(shaderlm(args), "devices", "--json"):
        facts.append("adapters: " + ", ".join(f"{a['name']} ({a['backend']}, {a['driver']})" for a in listed(adapters)))
    facts.append(f"{platform.machine()}, {os.cpu_count()} CPUs")
    if any(engine.startswith("torch") for engine in engines):
        facts.append("PyTorch " + output(args.python, "-c", "import torch; print(torch.__version__)"))
    locks = {"candle": "candle 0.11.1", "burn": "burn 0.22.1", "meganeura": "meganeura 0.3.0", "forge-ml": "forge-ml 0.3.0"}
    facts += [version for name, version in locks.items() if name in engines]
    busy = os.getloadavg()[0]
    facts.append(f"load {busy:.1f} before the run ({'busy: ratios only' if busy > 0.5 else 'quiet'})")
    return "; ".join(facts)


def listed(text):
    """`shaderlm devices --json` prints an object a line."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def options(parser, repeats):
    """Those that every comparison has."""
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--bin", help="a folder of prebuilt programs: shaderlm, peer-*, and our benchmarks")
    parser.add_argument("--python", default=sys.executable, help="the Python that has torch")
    parser.add_argument("--commit", help="where programs come from elsewhere")
    parser.add_argument("--append", help="a Markdown file that the table is added to")
    parser.add_argument("--json", help="a file for all times")


class Report:
    """Lines that are printed, and kept for a file."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        print(line, flush=True)
        self.lines.append(line)

    def keep(self, args, facts, found):
        """Writes what --append and --json ask for."""
        if args.append:
            with open(args.append, "a") as file:
                file.write("\n" + "\n".join(self.lines) + "\n")
        if args.json:
            with open(args.json, "w") as file:
                json.dump({"machine": facts, "measured": found}, file, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="shaderlm,candle,torch,torch-compiled")
    parser.add_argument("--tasks", default="matmul,attention,forward,train")
    parser.add_argument("--matmuls", nargs="*", default=MATMULS, metavar="M,N,K,nn|nt|tn")
    parser.add_argument("--attentions", nargs="*", default=ATTENTIONS, metavar="BATCH,LENGTH,WIDTH,HEADS")
    for name, value in SHAPE.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="of the GPT-2 in forward and train")
    options(parser, repeats=9)
    args = parser.parse_args()
    report, found = Report(), []
    say = report.say
    say(f"### Side by side, {args.engines.replace(',', ', ')}\n")
    facts = machine(args, args.engines.split(","))
    say(f"{facts}. {args.repeats} repetitions, in turn.\n")
    say("| task | engine | median ms | quartiles | GFLOP/s | shaderlm / it |\n|---|---|---|---|---|---|")
    cases = {"matmul": args.matmuls, "attention": args.attentions}
    shape = f"V{args.vocab} T{args.context} C{args.width} L{args.layers} H{args.heads} B{args.batch}"
    for task in args.tasks.split(","):
        for case in cases.get(task, [shape]):
            side_by_side(args, task, case, say, found)
    report.keep(args, facts, found)


if __name__ == "__main__":
    main()
