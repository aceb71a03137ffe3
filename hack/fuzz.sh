#!/usr/bin/env bash
# fuzz.sh TIME PACKAGE...: fuzzes each fuzz target of the packages for TIME, as in 30s. An input that fails is kept in the package's
# testdata/fuzz, to be committed with its fix.
set -euo pipefail

time=$1
shift
for package in $(go list "$@"); do
  for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
    printf '==> %s %s\n' "$package" "$target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$package"
  done
done
