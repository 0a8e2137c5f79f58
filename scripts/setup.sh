#!/usr/bin/env bash
# Set up an environment: scripts/setup.sh FOLDER REQUIREMENTS. Nothing is done twice, and nothing outside
# FOLDER is touched but for a Java, which is installed only where there is none and the system allows it.
set -euo pipefail
folder=$1 requirements=$2

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

install_java() {
    local apt=(apt-get)
    [ "$(id -u)" = 0 ] || apt=(sudo -n apt-get)
    command -v apt-get >/dev/null && "${apt[@]}" update -qq >/dev/null 2>&1 || return 1
    for package in openjdk-17-jre-headless openjdk-21-jre-headless; do
        echo "mission9: installing $package"
        DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 &&
            return
    done
    return 1
}

if [ ! -x "$folder/bin/pip" ]; then
    python=$(find_python)
    echo "mission9: making $folder with $("$python" --version)"
    "$python" -m venv "$folder" || die "python cannot make an environment; on Debian and Ubuntu: sudo apt-get install python3-venv"
fi
echo "mission9: installing $requirements"
"$folder/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --editable .

find_java() { "$folder/bin/python" -c 'from mission9.session import find_java; print(find_java())' 2>&1; }
java=$(find_java) || install_java || die "$(tail -n 1 <<<"$java" | sed 's/^[^:]*: //')"
echo "mission9: Java in $(find_java)"
