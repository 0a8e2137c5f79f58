#!/bin/sh
# What spark.*.resource.gpu.discoveryScript names: the GPUs of this machine, as {"name": "gpu", "addresses": ["0", "1"]}.
# Without a GPU the list is empty. Where nvidia-smi fails, so does this, and Spark says why the worker does not start.
set -eu
indices=
if command -v nvidia-smi >/dev/null; then
    indices=$(nvidia-smi --query-gpu=index --format=csv,noheader)
fi
addresses=
for index in $indices; do
    case $index in
        *[!0-9]*) echo "discover-gpus.sh: nvidia-smi says: $indices" >&2; exit 1 ;;
    esac
    addresses="$addresses${addresses:+, }\"$index\""
done
echo "{\"name\": \"gpu\", \"addresses\": [$addresses]}"
