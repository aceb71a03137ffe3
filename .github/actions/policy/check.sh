#!/usr/bin/env bash
# Lints FILES, checks the assertions of TESTS, and lists what has changed since the commit BASE. Fails if there is an error, if an assertion does not hold, or if
# there is a difference that FAIL_ON names. PROGRAM is kubectl-ringfence. It prints Markdown.
set -euo pipefail

read -ra files <<<"$FILES"
read -ra tests <<<"${TESTS:-}"
names=()
for f in "${files[@]}"; do names+=(-f "$f"); done
common=(--pod-cidr "${POD_CIDR:-10.244.0.0/16}")
failed=0

section() { # TITLE COMMAND...: the output of a command as a block, and whether it succeeded
    printf '### %s\n\n```\n' "$1"
    "${@:2}" 2>&1 || failed=1
    printf '```\n\n'
}

section "Lint" "$PROGRAM" lint "${names[@]}" "${common[@]}"
if ((${#tests[@]})); then
    section "Assertions" "$PROGRAM" test "${names[@]}" "${common[@]}" "${tests[@]}"
fi
if [[ -n ${BASE:-} ]]; then
    before=$(mktemp -d)
    trap 'rm -rf "$before"' EXIT
    git archive "$BASE" -- "${files[@]}" | tar -x -C "$before"
    printf '### What the change opens and closes\n\n'
    "$PROGRAM" diff "${names[@]}" "${common[@]}" --against "$before" --fail-on "${FAIL_ON:-none}" -o markdown || failed=1
fi
exit "$failed"
