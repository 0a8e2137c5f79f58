#!/usr/bin/env bash
# Print where the Java is that Spark will take: scripts/java.sh ENVIRONMENT. Where there is none, install one if the
# system allows it.
set -euo pipefail
folder=$1

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

find_java() { "$folder/bin/python" -c 'from mission9.runners.spark_session import find_java; print(find_java())' 2>&1; }
if ! java=$(find_java) && ! install_java; then
    echo "mission9: $(tail -n 1 <<<"$java" | sed 's/^[^:]*: //')" >&2
    exit 1
fi
echo "mission9: Java in $(find_java)"
