#!/bin/sh
# Installs the PACS that the tests speak to (Debian, as root); says so and goes on where it cannot.
set -u
packages="orthanc orthanc-dicomweb"
missing=""
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    # the package would start a PACS of its own on this machine's ports: only the binary is wanted
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
    fi
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "servers: not installed:$missing; tests against a real PACS will be skipped" >&2
