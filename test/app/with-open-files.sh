#!/bin/bash
# Node with a bound on the files that it may have open.
ulimit -n 128
exec node "$@"
