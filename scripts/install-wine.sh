#!/usr/bin/env bash
# Installs Wine 10, which runs the tests of the Windows library, from four packages of Debian 13 into one folder. Not by
# apt: with all that they depend on they would replace half of a Debian 12. The Wine 8 of Debian 12 cannot run .NET: an
# exception leaves a stale handler on the stack, and the next one calls it. No root; 110 MB are downloaded. The glibc of
# Debian 13 must be there, which scripts/install-libstdcxx.sh brings along.
#
#   scripts/install-wine.sh [--print-program]
#
# The folder is $LATTN_WINE_FOLDER or ~/.cache/lightning_attn/wine; --print-program names the program in it and does
# nothing else. DEBIAN_MIRROR names the Debian archive where the machine's own apt sources do not.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib-debian.sh"

readonly folder=${LATTN_WINE_FOLDER:-${XDG_CACHE_HOME:-$HOME/.cache}/lightning_attn/wine}
readonly packages=(wine64 libwine libz-mingw-w64 libunwind8)

# Without the wrapper, which would make a Wine folder.
works() {
    [[ -x $1/bin/wine64 && -e $1/usr/share/wine/wine/nls/l_intl.nls &&
        $(LD_LIBRARY_PATH=$1/usr/lib/x86_64-linux-gnu "$1/usr/lib/wine/wine64" --version 2> /dev/null) == wine-10.* ]]
}

# unpack DEBS INTO
unpack() {
    local deb
    mkdir -p "$2/bin"
    for deb in "$1"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$2" --exclude='./usr/share/doc' --exclude='./usr/share/man'
    done
    # The server looks for its tables in share/wine/wine/nls of its own tree, and in /usr/share/wine/nls, where Debian
    # has them and this folder is not.
    [[ -e $2/usr/share/wine/wine ]] || ln -s . "$2/usr/share/wine/wine"
    # Debian's wineserver is a script that starts the one of /usr/lib.
    ln -sf wineserver64 "$2/usr/lib/wine/wineserver"
    ln -s ../usr/lib/wine/wineserver64 "$2/bin/wineserver"

    # user32.dll needs the zlib1.dll of libz-mingw-w64, in every process of a Wine folder (WINEPREFIX).
    cat > "$2/bin/wine64" << 'PROGRAM'
#!/bin/sh
usr=$(dirname "$(readlink -f "$0")")/../usr
export LD_LIBRARY_PATH="$usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
system32=${WINEPREFIX:-$HOME/.wine}/drive_c/windows/system32
[ -e "$system32/zlib1.dll" ] || { mkdir -p "$system32" && cp "$usr/x86_64-w64-mingw32/lib/zlib1.dll" "$system32"; }
exec "$usr/lib/wine/wine64" "$@"
PROGRAM
    chmod +x "$2/bin/wine64"
}

if [[ ${1:-} == --print-program ]]; then
    printf '%s\n' "$folder/bin/wine64"
    exit
fi
if works "$folder"; then exit; fi
is_debian_like || die "this installer needs apt-get and dpkg-deb; on other systems install Wine 9 or newer"
[[ $(dpkg --print-architecture) == amd64 ]] || die "the tests of the Windows library need an x86-64 machine"

# The work is done beside the target, so that the last step is a rename.
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$(dirname "$folder")/.wine-XXXXXX")
trap 'rm -rf "$work"' EXIT
say "Downloading Wine 10 (110 MB) ..."
download_debs "$work/apt" trixie main "${packages[@]}"
unpack "$work/apt/debs" "$work/wine"
works "$work/wine" || die "the unpacked Wine does not start"
rm -rf "$folder"
mv "$work/wine" "$folder"
say "Wine is in $folder ($(du -sm "$folder" | cut -f1) MB)"
