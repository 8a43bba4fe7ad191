#!/bin/bash
# Node in a terminal of its own, which closes when this process ends.
exec script --quiet --flush --return --command "exec node$(printf ' %q' "$@")" /dev/null
