# shellcheck shell=bash disable=SC2034
# The settings of launch.sh and kill.sh. Runs nothing. Each can be set in the environment instead.

# The nodes, in the same order everywhere (the first forms the cluster and is its first master),
# separated by spaces or commas: HOST:PORT, 192.0.2.1:PORT, [2001:db8::1]:PORT or
# [fe80::1%eth0]:PORT. The index of a node counts from 0.
NODES=${NODES:-127.0.0.1:8801 127.0.0.1:8802 127.0.0.1:8803 127.0.0.1:8804 127.0.0.1:8805}

# Where nodes keep their state: node INDEX has the directory node-INDEX in it. Empty: in memory
# only. This path, and the one below, start at the directory of these scripts (on another machine:
# at REMOTE_PATH) unless they start with a slash.
DATA_DIR=${DATA_DIR-data}

# The logs, and a file for each running node that records its process.
LOG_DIR=${LOG_DIR:-logs}

# fsync: an answered write survives a power failure. os: it survives the node, not the machine.
DURABILITY=${DURABILITY:-fsync}

# How long a member may be unreachable before it is removed; when it is back it is admitted again.
# 500ms to 1h, or 0 for never.
SHRINK_AFTER=${SHRINK_AFTER:-3s}

# 1 (or yes, true; off: 0, no, false or empty), for the first start of a cluster: the first node
# forms it with more than half of the nodes, once no new node has appeared for 3 s; the others join
# later. The same as `launch.sh --bootstrap`.
BOOTSTRAP=${BOOTSTRAP:-}

# Whether nodes accept Firecloud's text datagrams: auto, on or off. auto: on if all of NODES have
# loopback addresses and the node listens at one.
TEXT=${TEXT:-auto}

# 1 (or yes, true): nodes accept membership changes (`horseshoe member`) from any machine. Empty (or
# 0, no, false): only from their own.
# Messages are not authenticated yet: with 1 anyone who can send to a node can add, remove and force
# members.
INSECURE_ADMIN=${INSECURE_ADMIN:-}

# How much memory a node may use before it refuses writes that grow: bytes, 512M or 2G, at least
# 64M; 0 for no limit. Empty: 60 % of the least of the machine's memory, what the node's control
# group allows, and what `ulimit -v` and `-d` leave, but at least 64M. If several nodes share a
# machine, give each its part.
MEMORY_MAX=${MEMORY_MAX:-}

# The largest value that clients may write: bytes, 512K or 4M, from 2048 to 16M; the same on all
# nodes. Empty: 1M.
VALUE_MAX=${VALUE_MAX:-}

# How much space must be free on the disk of a node's data directory; with less the node refuses
# writes that grow: bytes, 512M or 2G; 0 for none. Empty: from 64M to 1G, by the size of the store.
DISK_RESERVE=${DISK_RESERVE:-}

# How long a write to the disk may take; after this time the disk counts as hung, and the node has
# no vote until the write finishes: 500ms to 10m. Empty: 2s.
DISK_HUNG_AFTER=${DISK_HUNG_AFTER:-}

# How often nodes send heartbeats, 10 to 1000, and after how long a silence a link counts as down,
# three heartbeats to 10000, both in milliseconds; raise them for links that lose many datagrams.
# The same for all nodes. Empty: 50 and 200.
HEARTBEAT_MS=${HEARTBEAT_MS:-}
LINK_DOWN_MS=${LINK_DOWN_MS:-}

# What nodes log: error, warn, info, debug or trace, or a filter in the syntax of tracing's
# env-filter. Empty: info, with the warnings of the store.
LOG_FILTER=${LOG_FILTER:-}

# The name of the cluster: `horseshoe status` shows it, and `--cluster` accepts it. Set it before
# the first start; later it can't be changed. 1 to 64 letters, digits, `-`, `_` or `.`; empty: no
# name.
CLUSTER_NAME=${CLUSTER_NAME:-}

# The address at which nodes listen, if it is not the listed one: 0.0.0.0 or [::] for all addresses
# of their machine. For containers, virtual and translated addresses; see docs/guide.md.
LISTEN=${LISTEN:-}

# The address at which each node serves metrics, /healthz and /readyz over HTTP: a numeric address
# of its machine, or 0.0.0.0 or [::] for all of them, without a port (HTTP uses the TCP port of the
# same number as in NODES). Empty: no HTTP. See docs/operations.md.
HTTP=${HTTP:-}

# The program to start. Empty: target/release/horseshoe, built when it is missing or out of date.
BINARY=${BINARY:-}

# How long launch.sh waits for a quorum, and kill.sh for a process to end, in seconds.
LAUNCH_TIMEOUT=${LAUNCH_TIMEOUT:-30}
KILL_TIMEOUT=${KILL_TIMEOUT:-10}

# For hosts that are not this machine: the user and the private key for ssh (empty: ssh's own
# choice), and the directory that holds the program, the logs and the data there, from the user's
# home unless it starts with a slash.
SSH_USER=${SSH_USER:-}
SSH_KEY=${SSH_KEY:-}
REMOTE_PATH=${REMOTE_PATH:-horseshoe}

# 1 (or yes, true): go over ssh to every node, also to those on this machine.
SSH_ALWAYS=${SSH_ALWAYS:-}
