#!/usr/bin/env bash
# What the machine needs before anything is built. Installs what can be installed (Debian and Ubuntu, as root), names
# the rest together with the command that fixes it.
#
#   scripts/prerequisites.sh [--tests | --windows]
#
# --tests: GoogleTest too; --windows: what cross-compiling the Windows library and running its tests takes
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib-debian.sh"
readonly scripts=$(dirname "${BASH_SOURCE[0]}")

# apt_install PACKAGE...: quietly; the whole of apt's output when it fails.
apt_install() {
    local log
    log=$(mktemp)
    say "Installing $*"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -o Dpkg::Use-Pty=0 --no-install-recommends)
    # A fresh image has no package lists.
    if ! { "${install[@]}" "$@" || { apt-get update && "${install[@]}" "$@"; }; } > "$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# need TOOL APT_PACKAGE...: the tool is there, or gets there.
need() {
    local tool=$1
    shift
    command -v "$tool" > /dev/null && return
    if is_debian_like && [[ $(id -u) == 0 ]]; then
        apt_install "$@" || die "apt-get could not install $*"
    elif is_debian_like; then
        die "$tool is missing; run: sudo apt-get install $*"
    else
        die "$tool is missing; install it with this system's package manager"
    fi
}

need_version() {
    local tool=$1 least=$2 found=$3
    [[ $(printf '%s\n%s\n' "$least" "$found" | sort -V | sed -n 1p) == "$least" ]] ||
        die "$tool $least or newer is needed; this is $found ($(command -v "$tool"))"
}

need cmake cmake
need_version cmake 3.25 "$(cmake --version | sed -n '1s/.* //p')"
need "${CXX:-g++}" g++ make
need_version "${CXX:-g++}" 12 "$("${CXX:-g++}" -dumpversion)"
command -v ninja > /dev/null || need make make

command -v dotnet > /dev/null || die "the .NET SDK 10.0 is missing: https://dotnet.microsoft.com/download/dotnet/10.0"
dotnet --list-sdks | grep '^10\.' > /dev/null ||
    die "the .NET SDK 10.0 is needed; there are: $(dotnet --list-sdks | tr '\n' ' ')"

"$scripts/install-libstdcxx.sh"

if [[ ${1:-} == --tests && ! -e /usr/include/gtest/gtest.h ]]; then
    if ! { is_debian_like && [[ $(id -u) == 0 ]] && apt_install libgtest-dev; }; then
        say "warning: no GoogleTest, the native tests are left out; Debian, Ubuntu: sudo apt-get install libgtest-dev"
    fi
fi

if [[ ${1:-} == --windows ]]; then
    need x86_64-w64-mingw32-g++-posix g++-mingw-w64-x86-64-posix
    if [[ ! -e /usr/src/googletest/CMakeLists.txt ]]; then
        if ! { is_debian_like && [[ $(id -u) == 0 ]] && apt_install googletest; }; then
            die "GoogleTest's sources are missing; Debian, Ubuntu: sudo apt-get install googletest"
        fi
    fi
    "$scripts/install-wine.sh"
fi
