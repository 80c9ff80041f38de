#!/bin/sh
# Sets up what `make` needs.
#   setup.sh python     $VENV (.venv) with torch and this project in it
#   setup.sh peers      .venv-peers with torch, this project and Flower, for examples/benchmarks/peers
#   setup.sh packages   the MQTT broker, what `crowd lab` needs and the Fashion-MNIST data, from Debian
# Says in one line how to get what it cannot install itself, and then exits with 1.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
TORCH=${TORCH:-torch==2.13.0}

say() { echo "setup: $*" >&2; }

# apt_install PACKAGE...: installs them if we are root on Debian, else says how.
apt_install() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $*"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$@"; } >/dev/null || {
            say "apt-get could not install $*"
            return 1
        }
    else
        say "missing: $*. On Debian: sudo apt-get install $*"
        return 1
    fi
}

# environment DIRECTORY WHAT...: a virtual environment with torch and, of this project, WHAT (arguments of pip install).
environment() {
    directory=$1
    shift
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install python3-venv
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        say "$PYTHON is older than 3.11; name a newer one: make PYTHON=python3.11 VENV=.venv"
        exit 1
    }
    if ! [ -x "$directory/bin/pip" ]; then
        say "making $directory"
        "$PYTHON" -m venv "$directory"
    fi
    # Torch first and by itself, so that nothing else picks a larger build of it. TORCH may hold several arguments.
    say "installing $TORCH (the longest step)"
    # shellcheck disable=SC2086
    "$directory/bin/pip" install --quiet --disable-pip-version-check $TORCH
    say "installing $*"
    "$directory/bin/pip" install --quiet --disable-pip-version-check "$@"
    say "ready"
}

python() { environment "$VENV" --editable '.[dev]'; }

peers() {
    environment .venv-peers --editable '.[demo]' --requirement examples/benchmarks/peers/requirements.txt
    say "trying Flower: FedAvg on two parts of the digits"
    (cd examples/benchmarks/peers/flower_app && ../../../../.venv-peers/bin/python -m flower_peer.rounds ../two.toml digits 0)
}

packages() {
    missing=
    PATH=$PATH:/usr/sbin:/sbin
    command -v mosquitto >/dev/null || missing=mosquitto
    command -v mosquitto_sub >/dev/null || missing="$missing mosquitto-clients"
    if ! command -v ip >/dev/null || ! command -v tc >/dev/null; then missing="$missing iproute2"; fi
    [ -d /usr/share/datasets/fashion-mnist ] || missing="$missing dataset-fashion-mnist"
    # shellcheck disable=SC2086
    [ -z "$missing" ] || apt_install $missing
}

case ${1:-} in
    python | peers | packages) "$1" ;;
    *) say "usage: setup.sh python|peers|packages"; exit 2 ;;
esac
