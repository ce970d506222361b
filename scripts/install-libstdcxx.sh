#!/usr/bin/env bash
# TorchSharp's native library needs GLIBCXX_3.4.32, the C++ runtime of GCC 13. Debian 12 stops at 3.4.30; there this
# script takes libstdc++6 (and the libc6 it needs) from Debian 13, whose packages otherwise stay at a priority that
# lets them replace nothing. On every other system it names what is to be done.
#
#   scripts/install-libstdcxx.sh [--check]
#
# Exit status: 0 the runtime is there (now), 1 it is not. --check only looks.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib-debian.sh"

readonly needed=GLIBCXX_3.4.32
readonly source_file=/etc/apt/sources.list.d/lightning-attn-trixie.sources
readonly pin_file=/etc/apt/preferences.d/lightning-attn-trixie

has_runtime() {
    local library
    for library in $(ldconfig -p | awk '/libstdc\+\+\.so\.6 / { print $NF }') /usr/lib/*-linux-gnu/libstdc++.so.6; do
        if [[ -r $library ]] && grep -qa "$needed" "$library"; then return 0; fi
    done
    return 1
}

install_from_trixie() {
    local mirror log
    mirror=$(debian_mirror)
    [[ -n $mirror ]] || die "this machine's apt sources name no Debian archive; set DEBIAN_MIRROR to the address of one"

    # Priority 100 is that of installed packages: nothing moves to trixie by itself, and what came from trixie still
    # receives its security updates from there.
    printf 'Package: *\nPin: release n=trixie\nPin-Priority: 100\n' > "$pin_file"
    debian_source "$mirror" trixie main > "$source_file"
    # Another source of the machine may be out of reach; it is the install that has to succeed.
    apt-get update -qq || say "warning: apt-get update reported errors"
    log=$(mktemp)
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -o Dpkg::Use-Pty=0 --no-install-recommends \
        -t trixie libstdc++6 > "$log" 2>&1; then
        cat "$log" >&2
        die "apt-get could not install libstdc++6 from trixie"
    fi
    rm -f "$log"
}

if has_runtime; then exit 0; fi
if [[ ${1:-} == --check ]]; then exit 1; fi

say "This system's libstdc++ lacks $needed, which TorchSharp needs."
if ! is_debian_like || [[ $(os_release ID) != debian || $(os_release VERSION_ID) != 12 ]]; then
    die "install the libstdc++ of GCC 13 or newer (Ubuntu 24.04, Debian 13, Fedora 38 have it), e.g. on Ubuntu 22.04:
    sudo add-apt-repository ppa:ubuntu-toolchain-r/test && sudo apt-get install libstdc++6"
fi
if [[ $(id -u) != 0 ]]; then
    die "installing it needs root; run: sudo $(realpath "${BASH_SOURCE[0]}")"
fi
say "Installing libstdc++6 from Debian 13 (trixie); to undo the apt source later: rm $source_file $pin_file"
install_from_trixie
has_runtime || die "libstdc++6 was installed but $needed is still missing"
