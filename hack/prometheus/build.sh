#!/usr/bin/env bash
# build.sh: builds promtool from the version that go.mod beside it pins, into
#
#   ${XDG_CACHE_HOME:-~/.cache}/ringfence/promtool-VERSION/
#
# where it is kept, and prints its path on standard output. It is built without service discovery, which needs the libraries of every
# cloud, and which nothing here asks it for.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off

version=$(go list -m -f '{{.Version}}' github.com/prometheus/prometheus)
program=${XDG_CACHE_HOME:-$HOME/.cache}/ringfence/promtool-$version/promtool
if [[ ! -x $program ]]; then
  printf 'building promtool %s (once: about two minutes on two cores)\n' "$version" >&2
  mkdir -p "${program%/*}"
  trap 'rm -f "$program.$$"' EXIT
  nice -n 5 go build -tags remove_all_sd -ldflags '-s -w' -o "$program.$$" github.com/prometheus/prometheus/cmd/promtool >&2
  mv "$program.$$" "$program" # last, so that an interrupted build leaves nothing that looks whole
fi
printf '%s\n' "$program"
