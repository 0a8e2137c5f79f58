#!/bin/sh
# Begin a container's program; of the folders in WRITTEN, say first which the container's user cannot write.
for folder in ${WRITTEN:-}; do
    if ! [ -w "$folder" ]; then
        echo "mission9: user $(id -u) of this container cannot write $folder/. On the host, give it the folder (sudo chown -R $(id -u) $folder), or put its owner's number as CONTAINER_UID into .env; then: docker compose up --detach --build" >&2
    fi
done
exec "$@"
