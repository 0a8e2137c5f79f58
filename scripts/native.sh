#!/usr/bin/env bash
# Build native/, a faster resize, into an environment: scripts/native.sh FOLDER. Without a C compiler, Pillow resizes.
set -euo pipefail
folder=$1

if command -v cc >/dev/null; then
    scripts/setup.sh "$folder" --no-deps ./native && exit
fi
echo "mission9: native/ is not built (no C compiler, or it failed): Pillow resizes images, to the same pixels"
