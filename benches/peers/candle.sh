#!/bin/sh
# shaderlm beside candle; further arguments go to side_by_side.py.
exec "$(dirname "$0")/beside.sh" candle "$@"
