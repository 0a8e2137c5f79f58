#!/bin/bash
# Runs on every machine of an EMR cluster before Hadoop starts: emr-bootstrap.sh s3://BUCKET/code gpu|cpu
# A Python of its own with what mission9 needs, from the wheels in code/wheelhouse: the subnet has no way to the internet.
# Packages of the system come from Amazon Linux's repositories, which lie in S3.
set -euo pipefail
code=$1 kind=$2
home=/opt/mission9

sudo dnf install --quiet --assumeyes python3.11 python3.11-pip
sudo python3.11 -m venv "$home"
wheelhouse=$(mktemp --directory)
aws s3 cp --only-show-errors --recursive "$code/wheelhouse/" "$wheelhouse"
sudo "$home/bin/pip" install --quiet --disable-pip-version-check --no-index --find-links "$wheelhouse" \
    --requirement "$wheelhouse/requirements.txt"
rm -r "$wheelhouse"

if [ "$kind" = gpu ]; then
    aws s3 cp --only-show-errors "$code/discover-gpus.sh" /tmp/discover-gpus.sh
    sudo install --mode 0755 /tmp/discover-gpus.sh "$home/discover-gpus.sh"
    # YARN of EMR 7 hands out GPUs by the devices controller of cgroups v1, which Amazon Linux 2023 does not mount.
    sudo mkdir -p /spark-rapids-cgroup/devices
    sudo mount -t cgroup -o devices cgroupv1-devices /spark-rapids-cgroup/devices
    sudo chmod a+rwx -R /spark-rapids-cgroup
fi
