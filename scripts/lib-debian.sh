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

# private_apt ROOT ARGUMENTS...: apt-get with a state of its own in the folder ROOT, whose sources alone it knows.
private_apt() {
    local root=$1
    shift
    apt-get -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$root/sources" \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$root/state" -o Dir::State::status="$root/state/status" -o Dir::Cache="$root/cache" \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# download_debs ROOT SUITE COMPONENTS PACKAGE...: the packages' files into ROOT/debs. Needs no root and touches nothing
# of the machine's own apt.
download_debs() {
    local root=$1 suite=$2 components=$3 mirror
    shift 3
    mirror=$(debian_mirror)
    [[ -n $mirror ]] || die "this machine's apt sources name no Debian archive; set DEBIAN_MIRROR to the address of one"
    mkdir -p "$root"/{sources,state/lists/partial,cache/archives/partial,debs}
    : > "$root/state/status"
    debian_source "$mirror" "$suite" "$components" > "$root/sources/$suite.sources"
    private_apt "$root" update -qq >&2 || die "cannot read the package lists of $suite at $mirror"
    (cd "$root/debs" && private_apt "$root" download -qq "$@") >&2 || die "cannot download $* of $suite from $mirror"
}
