#!/usr/bin/env bash
# stages.sh TARGET...: makes one target after the other, says how long each took, and ends with the first that fails.
set -euo pipefail

total=$SECONDS
for stage; do
  start=$SECONDS
  printf '==> %s\n' "$stage"
  if ! "${MAKE:-make}" --no-print-directory "$stage"; then
    printf '==> %s: FAILED after %d s\n' "$stage" $((SECONDS - start))
    exit 1
  fi
  printf '==> %s: ok, %d s\n' "$stage" $((SECONDS - start))
done
if (($# > 1)); then
  printf '==> all of %s: ok, %d s\n' "$*" $((SECONDS - total))
fi
