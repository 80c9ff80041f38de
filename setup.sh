#!/bin/sh
# Sets up what `make` needs.
#   setup.sh python     .venv with torch and this project in it
#   setup.sh packages   the MQTT broker and the Fashion-MNIST data, from Debian
# Says in one line how to get what it cannot install itself, and then exits with 1.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
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

python() {
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install python3-venv
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        say "$PYTHON is older than 3.11; name a newer one: make PYTHON=python3.11"
        exit 1
    }
    if ! [ -x .venv/bin/pip ]; then
        say "making .venv"
        "$PYTHON" -m venv .venv
    fi
    # Torch first and by itself, so that nothing else picks a larger build of it. TORCH may hold several arguments.
    say "installing $TORCH (the longest step)"
    # shellcheck disable=SC2086
    .venv/bin/pip install --quiet --disable-pip-version-check $TORCH
    say "installing this project and its tools"
    .venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
    say "ready"
}

packages() {
    missing=
    PATH=$PATH:/usr/sbin command -v mosquitto >/dev/null || missing=mosquitto
    [ -d /usr/share/datasets/fashion-mnist ] || missing="$missing dataset-fashion-mnist"
    # shellcheck disable=SC2086
    [ -z "$missing" ] || apt_install $missing
}

case ${1:-} in
    python | packages) "$1" ;;
    *) say "usage: setup.sh python|packages"; exit 2 ;;
esac
