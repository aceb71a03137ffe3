#!/usr/bin/env bash
# build.sh: builds golangci-lint from the version that go.mod beside it pins, into
#
#   ${XDG_CACHE_HOME:-~/.cache}/ringfence/golangci-lint-VERSION-GOVERSION/
#
# where it is kept, and prints its path on standard output. The Go version counts: a linter does not read code that is newer than
# the compiler it was built with.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off

version=$(go list -m -f '{{.Version}}' github.com/golangci/golangci-lint/v2)
program=${XDG_CACHE_HOME:-$HOME/.cache}/ringfence/golangci-lint-$version-$(go env GOVERSION)/golangci-lint
if [[ ! -x $program ]]; then
  printf 'building golangci-lint %s (once: about two minutes on two cores)\n' "$version" >&2
  mkdir -p "${program%/*}"
  trap 'rm -f "$program.$$"' EXIT
  nice -n 5 go build -ldflags '-s -w' -o "$program.$$" github.com/golangci/golangci-lint/v2/cmd/golangci-lint >&2
  mv "$program.$$" "$program" # last, so that an interrupted build leaves nothing that looks whole
fi
printf '%s\n' "$program"
