#!/usr/bin/env bash
# Builds the package kp (Kompute 0.9) and installs it into .venv, for device="kompute".
#
#   scripts/build_kompute.sh            where it is missing
#   scripts/build_kompute.sh --force    again
#
# kp publishes no wheel, and its build as published fetches sources from GitHub and a pybind11 that
# misreads arrays of numpy 2. Here everything comes from PyPI and Debian, in one to two minutes.
set -euo pipefail
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
[[ -x $python ]] || { echo "no .venv: run scripts/setup first" >&2; exit 1; }
case "${1:-}" in
    "") if compgen -G '.venv/lib*/python*/site-packages/kp-0.9.0.dist-info' >/dev/null; then
            exit 0
        fi ;;
    --force) ;;
    *) echo "usage: scripts/build_kompute.sh [--force]" >&2; exit 2 ;;
esac

include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
missing=()
if command -v dpkg-query >/dev/null; then
    packages=(libvulkan-dev libfmt-dev cmake make g++)
    [[ -e $include/Python.h ]] || packages+=("$(basename "$include")-dev")
    for package in "${packages[@]}"; do
        [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] \
            || missing+=("$package")
    done
fi
if (( ${#missing[@]} )); then
    as_root=()
    if (( EUID != 0 )); then
        if ! command -v sudo >/dev/null || { ! sudo -n true 2>/dev/null && [[ ! -t 0 ]]; }; then
            echo "not installed: ${missing[*]}; as root: apt-get install ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "installing ${missing[*]}"
    apt_get() {
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >/dev/null
    }
    apt_get install -y --no-install-recommends "${missing[@]}" \
        || { apt_get update; apt_get install -y --no-install-recommends "${missing[@]}"; }
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip() { "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
"$python" -m venv "$work/venv"
# pybind11 knows numpy 2 from 2.12 on. kp's setup.py needs distutils, which setuptools brings
pip install 'pybind11>=2.12' 'setuptools>=75,<80' wheel
echo 'kp==0.9.0 --hash=sha256:98e583dc6e9731ff6d7a3e3317817e4d93f7b2945929619e29a56325db279949' >"$work/kp.txt"
# from the source distribution, whose description is made by its own setup.py
pip download --no-deps --no-build-isolation --no-binary :all: --require-hashes \
    --requirement "$work/kp.txt" --dest "$work"
mkdir "$work/kp"
tar --extract --gzip --file "$work"/kp-0.9.0.tar.gz --directory "$work/kp" --strip-components 1
# a comma is missing, which hides the interpreter from CMake; and numpy 2 is fine with this pybind11
sed -i "s/VERSION_CHECK=ON'\$/VERSION_CHECK=ON',/; s/\"numpy<2.0.0\"/\"numpy\"/" "$work/kp/setup.py"

echo "building kp 0.9.0"
# without its debug layers: they switch validation on wherever the layer is installed
if ! env \
    KOMPUTE_OPT_INSTALL=OFF \
    KOMPUTE_OPT_USE_BUILT_IN_VULKAN_HEADER=OFF \
    KOMPUTE_OPT_USE_BUILT_IN_FMT=OFF \
    KOMPUTE_OPT_USE_BUILT_IN_PYBIND11=OFF \
    KOMPUTE_OPT_DISABLE_VK_DEBUG_LAYERS=ON \
    KOMPUTE_PYTHON_NUM_PARALLEL_THREADS="$(nproc 2>/dev/null || echo 2)" \
    pybind11_DIR="$("$work/venv/bin/python" -m pybind11 --cmakedir)" \
    "$work/venv/bin/python" -m pip --disable-pip-version-check wheel --verbose --no-deps \
    --no-build-isolation --wheel-dir "$work" "$work/kp" >"$work/log" 2>&1; then
    tail -n 40 "$work/log" >&2
    echo "building kp failed; the end of its output is above" >&2
    exit 1
fi
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall \
    "$work"/kp-0.9.0-*.whl
"$python" - <<'CHECK'
from vkconv.device import open_device

device = open_device("kompute")
print(f"kp is installed: {device.info.name}")
device.close()
CHECK
