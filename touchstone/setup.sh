#!/bin/sh
# `make setup`: finds a Python that Touchstone runs on and hands over to bootstrap.py. PYTHON=... names one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
seen=
for candidate in ${PYTHON:-"$root/.venv/bin/python" python3 python3.13 python3.12 python3.11}; do
    # A version manager's shim may be on the PATH and still not run, so each one is asked.
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case $version in
        3.11 | 3.12 | 3.13) exec "$candidate" -I "$here/bootstrap.py" ;;
    esac
    seen="$seen${seen:+, }$candidate ($version)"
done
echo "setup: needs Python 3.11, 3.12 or 3.13; found ${seen:-none} (install one, or: make setup PYTHON=/path/to/python3.11)" >&2
exit 1
