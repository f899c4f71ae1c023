#!/bin/sh
# shaderlm beside burn; further arguments go to side_by_side.py.
exec "$(dirname "$0")/beside.sh" burn --tasks matmul,forward,train "$@"
