#!/usr/bin/env bash
# deps.sh [test]: installs those of the programs that Ringfence and its lab call which this machine lacks; with "test" also what
# tests need beyond that: a C compiler for the race detector, and nft, by which other programs write rules. On Debian and Ubuntu it asks apt; elsewhere it says what is missing. What is there already is left alone: without anything to do
# it needs neither root nor a network.
set -euo pipefail

# A program, and the packages that bring it.
programs='
iptables iptables
ip6tables iptables
iptables-legacy-restore iptables
iptables-nft-restore iptables
ipset ipset
conntrack conntrack
ip iproute2
sysctl procps
nsenter util-linux
'

case ${1-} in
  '') ;;
  test) programs+=$'gcc gcc libc6-dev\nnft nftables\n' ;;
  *) echo "usage: deps.sh [test]" >&2 && exit 2 ;;
esac

PATH=$PATH:/usr/sbin:/sbin # a plain user's has neither
missing=() packages=()
while read -r program from; do
  [[ -n $program ]] || continue
  if ! command -v "$program" >/dev/null; then
    missing+=("$program")
    for package in $from; do
      [[ " ${packages[*]-} " == *" $package "* ]] || packages+=("$package")
    done
  fi
done <<<"$programs"
((${#missing[@]})) || exit 0

echo "missing: ${missing[*]}" >&2
if ! command -v apt-get >/dev/null; then
  echo "install the packages that have them (on Debian: ${packages[*]}), then try again" >&2
  exit 1
fi
if ((EUID != 0)); then
  echo "run as root: apt-get install ${packages[*]}" >&2
  exit 1
fi
echo "installing with apt: ${packages[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -qqy --no-install-recommends "${packages[@]}" >/dev/null; }
# The lists of a fresh machine are empty, and old ones name packages that are gone.
install 2>/dev/null || { apt-get update -qq && install; }
for program in "${missing[@]}"; do
  hash -r
  command -v "$program" >/dev/null || {
    echo "$program is still missing after installing ${packages[*]}" >&2
    exit 1
  }
done
