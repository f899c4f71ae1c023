#!/bin/sh
# shaderlm beside meganeura; further arguments go to side_by_side.py.
exec "$(dirname "$0")/beside.sh" meganeura --tasks matmul "$@"
