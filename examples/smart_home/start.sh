#!/bin/sh
# Three devices of one home train the task "watch" together, each a process of its own, over a Mosquitto of their own.
#
#   start.sh [DIRECTORY]      what it makes (keys, passwords, results, models) goes there; default: ./smart-home
#
# PORT= is the broker's port, CROWD= the crowd command. A second run keeps the keys. Ends all that it started.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-smart-home}
port=${PORT:-1885}
devices="gateway phone tablet"
PATH=$PATH:/usr/sbin:/usr/local/sbin

if [ -z "${CROWD:-}" ]; then
    CROWD=$here/../../.venv/bin/crowd
    [ -x "$CROWD" ] || CROWD=crowd
fi
for command in "$CROWD" mosquitto mosquitto_passwd; do
    command -v "$command" >/dev/null || { echo "start.sh: $command is not installed" >&2; exit 2; }
done
CROWD=$(command -v "$CROWD")
case $CROWD in /*) ;; *) CROWD=$PWD/$CROWD ;; esac

# Everything that each device would have on its own disk, in a directory of its name.
umask 077
mkdir -p "$work"
cd "$work"
for device in $devices; do
    mkdir -p "$device"
    sed "s/:1885/:$port/" "$here/$device.toml" >"$device/node.toml"
    [ -e "$device/$device.key" ] || (cd "$device" && "$CROWD" keys new "$device" >/dev/null)
    [ -e "$device/mqtt.password" ] || od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$device/mqtt.password"
done
for device in $devices; do "$CROWD" keys show "$device/$device.key"; done >members.toml
for device in $devices; do cp members.toml "$device/"; done

# The broker knows the passwords by their hashes.
for device in $devices; do echo "$device:$(cat "$device/mqtt.password")"; done >passwords
mosquitto_passwd -U passwords
cp "$here/acl" acl
{
    sed "s/^listener .*/listener $port 127.0.0.1/" "$here/mosquitto.conf"
    echo "user $(id -un)" # started by root it would become a user who cannot read this directory
} >mosquitto.conf

running=
stop() {
    trap - EXIT INT TERM
    for process in $running; do kill "$process" 2>/dev/null || true; done
    wait
}
trap stop EXIT
trap 'exit 130' INT TERM

mosquitto -c mosquitto.conf 2>mosquitto.log &
broker=$!
running=$broker
until grep -q ' running$' mosquitto.log; do
    kill -0 "$broker" 2>/dev/null || { echo "start.sh: Mosquitto does not start (PORT= chooses another port than $port):" >&2; cat mosquitto.log >&2; exit 2; }
    sleep 0.1
done

nodes=
for device in $devices; do
    "$CROWD" node --config "$device/node.toml" --once --json "$device/result.json" >"$device/log" 2>&1 &
    nodes="$nodes $!"
    running="$running $!"
done
echo "$devices: training; follow it with: tail -f $PWD/gateway/log"
code=0
for process in $nodes; do wait "$process" || code=$?; done
running=$broker

for device in $devices; do echo "$device: $(tail -n 1 "$device/log")"; done
echo "model of each: $PWD/DEVICE/state/model.safetensors, figures: DEVICE/result.json"
exit $code
