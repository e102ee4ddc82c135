#!/usr/bin/env bash
# A systemd of its own, as the first process of namespaces of its own: the machine's systemd, files and services are
# neither seen nor touched. /etc and /usr/local/bin are the machine's with a layer above them that vanishes; the network
# is the machine's. Ends with whoever started it. Needs root.
#   machine.sh BINARY          BINARY becomes /usr/local/bin/conclave there
set -euo pipefail

if [[ ${1:-} != --inside ]]; then
  # Of the unified hierarchy, wherever it is mounted: a group of its own is the root of what is seen inside.
  tree=$(findmnt --noheadings --first-only --output TARGET --types cgroup2)
  group=$tree$(sed -n 's/^0:://p' /proc/self/cgroup)/conclave-machine-$$
  mkdir "$group"
  (
    echo "$BASHPID" > "$group/cgroup.procs"
    exec unshare --fork --kill-child --pid --mount --uts --ipc --cgroup -- "$0" --inside "$1"
  ) &
  # unshare heeds no other signal; what it started is killed with it.
  trap 'kill -KILL %1' TERM INT
  # The first wait ends with the signal, the second with the machine.
  wait %1 || wait %1 || true
  # Its processes are killed with it, and gone a moment later.
  for _ in {1..100}; do
    find "$group" -depth -type d -exec rmdir {} + 2> /dev/null && exit
    sleep 0.1
  done
  exit 1
fi

binary=$2
mount --make-rprivate /
mount -t proc proc /proc
layer=$(mktemp -d)
mount -t tmpfs tmpfs "$layer"
for folder in /etc /usr/local/bin; do
  mkdir -p "$layer$folder/upper" "$layer$folder/work"
  mount -t overlay overlay -o "lowerdir=$folder,upperdir=$layer$folder/upper,workdir=$layer$folder/work" "$folder"
done
# Nothing of the machine's own starts here.
rm -rf /etc/systemd/system /etc/fstab
mkdir /etc/systemd/system
touch /usr/local/bin/conclave
mount --bind "$binary" /usr/local/bin/conclave
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/systemd/system
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /var/lib
while mountpoint -q /sys/fs/cgroup; do umount -l /sys/fs/cgroup; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# As a machine's first process finds them: without it credentials do not reach services.
mount --make-rshared /
printf '[Unit]\nDescription=Nothing but what is started\nDefaultDependencies=no\n' > /run/systemd/system/machine.target
exec env -i container=other PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
  --unit=machine.target --log-target=console --show-status=no
