"""What the checks of both kinds of models share: a table of results, the binary, and comparisons."""

import subprocess

import torch

LOGITS_ABS, GRAD_NMSE, LOSS_REL = 1e-4, 1e-8, 1e-5


class Table:
    """The results, printed as they come."""

    def __init__(self):
        self.failed = 0

    def row(self, what: str, ok: bool, detail: str):
        self.failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'}  {what:<58} {detail}", flush=True)


def shaderlm(table, binary, what, *args, timeout=600):
    """Runs the binary; True if it exited with 0. Otherwise the row shows the end of its standard error."""
    return printed(table, binary, what, *args, timeout=timeout) is not None


def printed(table, binary, what, *args, timeout=600):
    """The same, but gives standard output; None if it did not exit with 0."""
    try:
        done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        table.row(what, False, f"no end after {timeout} s")
        return None
    end = (done.stderr.strip().splitlines() or ["(nothing on standard error)"])[-1]
    table.row(what, done.returncode == 0, "exit 0" if done.returncode == 0 else f"exit {done.returncode}: {end}")
    return done.stdout if done.returncode == 0 else None


def nmse(got, want):
    """Squared error over squared size, in f64; the squared error itself where all of `want` is 0."""
    got, want = got.double(), want.double()
    return ((got - want).square().sum() / (want.square().sum() or 1)).item()


def compare_values(table, what, out, name, want, mask):
    """One output within LOGITS_ABS of torch's where `mask`, [batch, time] as a rule, is 1; everywhere if it is None."""
    got = out.get(name)
    if got is None or got.shape != want.shape or got.dtype != torch.float32:
        found = "missing" if got is None else f"{tuple(got.shape)} {got.dtype}"
        table.row(what, False, f"{name}: {found}, wanted {tuple(want.shape)} torch.float32")
        return
    if mask is not None:
        got, want = got[mask == 1], want[mask == 1]
    worst = (got - want).abs().max().item()
    ok = worst <= LOGITS_ABS and bool(got.isfinite().all())
    table.row(what, ok, f"max |error| {worst:.1e} of spread {want.std().item():.2f}, NMSE {nmse(got, want):.1e}")
