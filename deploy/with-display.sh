#!/bin/sh
# Runs a command under Xvfb where the machine has no screen.
if [ -z "${DISPLAY:-}" ] && command -v xvfb-run >/dev/null 2>&1; then
    exec xvfb-run -a -s "-screen 0 1400x1000x24" "$@"
fi
exec "$@"
