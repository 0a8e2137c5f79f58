#!/usr/bin/env bash
# Set up an environment: scripts/setup.sh FOLDER ARGUMENT..., the arguments being those of `pip install`.
#
# uv installs in a fifth of pip's time: the one on the PATH does, or the one pinned in requirements-tools.txt. pip
# installs torch, because it alone reads the settings by which a machine names a build of its own; and everything, where
# uv fails.
set -euo pipefail
folder=$1
shift

die() {
    echo "mission9: $1" >&2
    exit 1
}

find_python() {
    for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$python"
            return
        fi
    done
    die "Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3.11 ..."
}

if [ ! -x "$folder/bin/pip" ]; then
    python=$(find_python)
    echo "mission9: making $folder with $("$python" --version)"
    "$python" -m venv "$folder" || die "python cannot make an environment; on Debian and Ubuntu: sudo apt-get install python3-venv"
fi
pip=("$folder/bin/pip" --disable-pip-version-check)
uv=$(command -v uv || echo "$folder/bin/uv")
[ -x "$uv" ] || "${pip[@]}" install --quiet "$(grep '^uv==' requirements-tools.txt)" || uv=

torch=
for argument in "$@"; do
    [ ! -f "$argument" ] || torch=$torch$(grep '^torch==' "$argument" || true)
done
case " $* " in *" --constraint "*) torch= ;; esac # a constraint installs nothing

echo "mission9: installing into $folder: $*"
if [ -n "$uv" ] && "$uv" pip install --python "$folder/bin/python" --excludes <(echo torch) "$@"; then
    [ -z "$torch" ] || "${pip[@]}" install "$torch"
else
    "${pip[@]}" install "$@"
fi
