"""Thins a training log for the repository: every Nth line and those with a held-out loss.

    python3 tools/thin_log.py LOG.jsonl N > THIN.jsonl
"""

import json
import sys

for line in open(sys.argv[1], encoding="utf-8"):
    record = json.loads(line)
    if record["step"] % int(sys.argv[2]) == 0 or record["step"] == 1 or "eval_loss" in record:
        print(line, end="")
