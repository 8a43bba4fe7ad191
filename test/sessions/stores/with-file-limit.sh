#!/bin/bash
# Node with a bound on the size of the files it writes: 64 blocks of a kilobyte.
ulimit -f 64
exec node "$@"
