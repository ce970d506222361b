# Sourced by the installers: what they need to know about this Debian machine.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

is_debian_like() { [[ -r /etc/os-release ]] && command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null; }

# os_release FIELD: a value of /etc/os-release.
os_release() { (. /etc/os-release && printf '%s' "${!1:-}"); }

# debian_mirror: the archive that this machine installs Debian itself from, or DEBIAN_MIRROR where that is set. The
# address is never ours to choose: a machine may reach nothing but its own mirror.
debian_mirror() {
    # Not by /etc/os-release: on a Debian 12 with the libc6 of Debian 13 it says 13, and the apt sources say 12.
    local suites="bookworm|trixie|$(os_release VERSION_CODENAME)"
    if [[ -n ${DEBIAN_MIRROR:-} ]]; then
        printf '%s' "$DEBIAN_MIRROR"
    elif [[ $(os_release ID) == debian ]]; then
        apt-get update --print-uris 2> /dev/null | sed -nE "s#^'(.*)/dists/($suites)/InRelease'.*#\1#p" | sed -n 1p
    fi
}

# debian_source URI SUITE COMPONENTS: an apt source in deb822 form. Debian's keyring covers every suite in use.
debian_source() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n' "$1" "$2" "$3"
    if [[ -r $keyring ]]; then printf 'Signed-By: %s\n' "$keyring"; fi
}
