#!/usr/bin/env bash
# outdated.sh: says which modules that this repository asks for itself, in any of its go.mod, have a newer release. One whose line in go.mod ends with a
# comment "held: ..." is left out: the comment says why it stays. It asks the module proxy, so that it is no part of make verify.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
failed=0
while read -r file; do
  dir=$(dirname "$file")
  direct=$(go -C "$dir" list -m -f '{{if not (or .Indirect .Main)}}{{.Path}}{{end}}' all)
  tools=$(go -C "$dir" list -f '{{with .Module}}{{.Path}}{{end}}' tool 2>/dev/null || true)
  for module in $(sort -u <<<"$direct"$'\n'"$tools"); do
    line=$(grep -E "^(require |	)$module v" "$file") || continue
    [[ $line != *"held: "* ]] || continue
    if ! newer=$(go -C "$dir" list -m -u -f '{{with .Update}}{{.Version}}{{end}}' "$module" 2>&1); then
      printf '%s: %s: its releases cannot be asked for: %s\n' "$file" "$module" "$(tail -n 1 <<<"$newer")" >&2
    elif [[ -n $newer ]]; then
      printf '%s: %s is at %s, and there is %s\n' "$file" "$module" "$(awk '{print $2}' <<<"${line#require }")" "$newer"
      failed=1
    fi
  done
done < <(git ls-files 'go.mod' '*/go.mod')
exit "$failed"
