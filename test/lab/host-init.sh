# First process of one test host: runs in namespaces of its own (net, pid, mount, uts, ipc, cgroup), starts the host's Docker engine and
# then only reaps. Arguments: NAME ADDRESS DIR BRIDGE_CIDR CONTROLLERS("" on cgroup v2). Killing it ends the whole host.
set -u
name=$1 address=$2 dir=$3 bridge=$4 controllers=$5
mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /var/lib/docker "$dir/docker" "$dir/tmp"
mount --bind "$dir/docker" /var/lib/docker
mkdir -p "$dir/lib" && mkdir -p /var/lib/rubato-agent && mount --bind "$dir/lib" /var/lib/rubato-agent
mkdir -p "$dir/etc" && mkdir -p /etc/rubato && mount --bind "$dir/etc" /etc/rubato
# What an installer writes stays in the host, too.
mkdir -p "$dir/bin" "$dir/log" && mount --bind "$dir/bin" /usr/local/bin && mount --bind "$dir/log" /var/log
if [ -n "$controllers" ]; then
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  for controller in $controllers; do
    mkdir -p "/sys/fs/cgroup/$controller"
    if [ "$controller" = systemd ]; then mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
    else mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"; fi
  done
else
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir -p /sys/fs/cgroup/init
  for pid in $(cat /sys/fs/cgroup/cgroup.procs); do echo "$pid" >/sys/fs/cgroup/init/cgroup.procs 2>/dev/null; done
  for controller in cpu memory pids io cpuset; do echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; done
fi
hostname "$name"
printf '127.0.0.1 localhost\n%s %s\n' "$address" "$name" >/run/hosts
mount --bind /run/hosts /etc/hosts
rm -f "$dir/docker.sock" "$dir/engine-off"
# The engine is started again when it ends, as an init system would, unless a test wants it down.
while :; do
  dockerd --bip "$bridge" -H unix:///var/run/docker.sock -H "unix://$dir/docker.sock" >>"$dir/dockerd.log" 2>&1
  while [ -e "$dir/engine-off" ]; do sleep 0.1; done
  sleep 0.2
done &
echo ready >"$dir/booted"
trap : TERM INT HUP
while :; do wait || :; sleep 3600 & done
