#!/usr/bin/env bash
# NFS-Ganesha (Debian's nfs-ganesha-vfs) in a network namespace, for side-by-side measurements: exports DIR as /export, NFS version 3, ports 12049 and 12050 (mount).
# usage: peer-ganesha.sh up NETNS DIR STATE | down STATE      (root; STATE: a folder for its files)
# Replies to changes of names are durable only if DIR is on a file system mounted with dirsync: Ganesha leaves that to it.
set -euo pipefail
case "${1:-}" in
up)
  netns=$2 dir=$3 state=$4
  command -v ganesha.nfsd >/dev/null || { apt-get update -q; apt-get install -y -q --no-install-recommends nfs-ganesha-vfs rpcbind; } >/dev/null
  mkdir -p "$state/recovery"
  cat >"$state/conf" <<C
NFS_CORE_PARAM { Protocols = 3; NFS_Port = 12049; MNT_Port = 12050; Enable_NLM = false; Enable_RQUOTA = false; Bind_addr = 0.0.0.0; }
NFSv4 { RecoveryBackend = fs; RecoveryRoot = $state/recovery; }
EXPORT_DEFAULTS { Access_Type = RW; Squash = No_Root_Squash; SecType = sys; }
EXPORT { Export_Id = 1; Path = $dir; Pseudo = /export; Protocols = 3; Transports = TCP; FSAL { Name = VFS; } }
LOG { Default_Log_Level = EVENT; }
C
  # A /run of its own: the machine's rpcbind, if there is one, is not meant.
  nsenter --net="/run/netns/$netns" unshare --mount --propagation slave setsid sh -c '
    mount -t tmpfs tmpfs /run && mkdir -p /run/ganesha /run/dbus && rpcbind -f -w >/dev/null 2>&1 & sleep 1
    echo $! >"$0/rpcbind.pid"
    exec ganesha.nfsd -F -f "$0/conf" -p "$0/pid" -L "$0/log" -N NIV_EVENT' "$state" >"$state/out" 2>&1 </dev/null &
  for _ in $(seq 200); do
    nsenter --net="/run/netns/$netns" bash -c ': </dev/tcp/127.0.0.1/12049' 2>/dev/null && exit 0
    sleep 0.1
  done
  tail -5 "$state/log" "$state/out" >&2
  exit 1
  ;;
down)
  for name in pid rpcbind.pid; do kill -9 "$(cat "$2/$name" 2>/dev/null)" 2>/dev/null || true; done
  ;;
*) sed -n 2,5p "$0"; exit 2;;
esac
