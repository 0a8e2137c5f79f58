#!/bin/sh
# Make ready for `docker compose up`: the folders that containers share with this machine, and .env with a token, a
# password, and the number of the user who owns the folders. What is there already stays as it is.
#
#     sh docker/setup.sh [cpu|gpu]
set -eu

profile=${1:-cpu}
case $profile in
cpu | gpu) ;;
*)
    echo "mission9: give cpu or gpu, not $profile" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."

mkdir -p data dataset mlruns weights
uid=$(id -u)
if [ "$uid" = 0 ]; then # nobody in a container is root
    uid=${SUDO_UID:-1000}
    chown "$uid" data dataset mlruns notebooks notebooks/*.ipynb
fi

if [ -e .env ]; then
    echo "mission9: .env is there, and stays as it is"
    exit 0
fi
random() { od -An -N "$1" -t x1 /dev/urandom | tr -d ' \n'; }
umask 077
sed -e "s/^JUPYTER_TOKEN=.*/JUPYTER_TOKEN=$(random 24)/" -e "s/^MLFLOW_PASSWORD=.*/MLFLOW_PASSWORD=$(random 12)/" \
    -e "s/^COMPOSE_PROFILES=.*/COMPOSE_PROFILES=$profile/" -e "s/^CONTAINER_UID=.*/CONTAINER_UID=$uid/" \
    .env.example >.env.part
if [ "$(id -u)" = 0 ] && [ -n "${SUDO_UID:-}" ]; then chown "$uid" .env.part; fi
mv .env.part .env
echo "mission9: .env is made, with the token for Jupyter and the password for MLflow; now: docker compose up --detach --build"
