#!/bin/sh
# shaderlm beside forge-ml; further arguments go to side_by_side.py.
exec "$(dirname "$0")/beside.sh" forge-ml --tasks forward,train "$@"
