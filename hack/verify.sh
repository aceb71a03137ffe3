#!/usr/bin/env bash
# verify.sh: checks what no compiler looks at: that go.mod is tidy, that what is generated is up to date, that the manifests render,
# that the OLM bundle and the Helm chart install what they should, that Prometheus reads the queries and fires the alerts that it should, that what
# Argo CD and Flux are told of our kinds is right, that published programs are taken only with the right checksum, that GitHub understands the
# workflows, that links between documents lead somewhere, and that the tests that documents name exist.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
failed=0
say() {
  printf '%s\n' "$*" >&2
  failed=1
}

for module in . hack/envtest hack/generate hack/gitops hack/image hack/packages hack/workflows; do
  go -C "$module" mod tidy -diff >/dev/null || say "the go.mod of $module is not tidy: run 'make tidy'"
done

generated=$(mktemp -d)
trap 'rm -rf "$generated"' EXIT
hack/generate/generate.sh "$generated" || say "nothing can be generated from api"
diff -rq config/crd/bases "$generated/config/crd/bases" >&2 || say "the CRDs are out of date: run 'make generate'"
diff -q api/v1alpha1/zz_generated.deepcopy.go "$generated/api/v1alpha1" >&2 || say "the deep copies are out of date: run 'make generate'"

eval "$(hack/kube/build.sh kube 2>/dev/null)"
kubectl=$KUBEBUILDER_ASSETS/kubectl
[[ -x $kubectl ]] || kubectl=kubectl # KUBEBUILDER_ASSETS may be the user's own, without it
# renders DIR KIND...: whether kustomize makes objects of these kinds of it.
renders() {
  local dir=$1 kind rendered
  shift
  rendered=$("$kubectl" kustomize "$dir") || say "$dir does not render"
  for kind; do
    grep -q "^kind: $kind\$" <<<"$rendered" || say "$dir has no $kind"
  done
}
renders config/default CustomResourceDefinition Namespace ServiceAccount ClusterRole ClusterRoleBinding Role RoleBinding \
  ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding DaemonSet Deployment PodDisruptionBudget ResourceQuota
# An admission policy that looks for another name than the enforcers' would hold nobody. The lab takes both from config/rbac, where no kustomization
# puts names in. kustomize breaks lines where it likes.
enforcers="['system', 'serviceaccount', 'ringfence-system', 'ringfence-enforcer']"
for dir in config/rbac config/default; do
  [[ $("$kubectl" kustomize "$dir" | tr -s ' \n' ' ') == *"== $enforcers"*"== $enforcers"* ]] ||
    say "the two admission policies of $dir are not about $enforcers"
  [[ $("$kubectl" kustomize "$dir" | tr -s ' \n' ' ') == *"== ${enforcers/enforcer/controller}"* ]] || say "no admission policy of $dir is about the controller"
done
renders config/first-packet CustomResourceDefinition DaemonSet Deployment
# How a name of an image is taken apart: name, tag and digest.
. hack/image-reference.sh
while read -r image want; do
  name='' tag='' digest=''
  split_image "$image" 2>/dev/null || name=refused tag='' digest=''
  [[ "$name,$tag,$digest" == "$want" ]] || say "$image is taken for $name,$tag,$digest, want $want"
done <<'END'
ringfence:latest ringfence,latest,
registry.example:5000/a/ringfence:v1 registry.example:5000/a/ringfence,v1,
registry.example/ringfence@sha256:ab registry.example/ringfence,,sha256:ab
registry.example:5000/ringfence:v1@sha256:ab registry.example:5000/ringfence,v1,sha256:ab
ringfence refused,,
registry.example:5000/ringfence refused,,
END
# What a release has of all these, and of the overlays: no container is left with another image than that of the release.
manifests=$generated/manifests
hack/release.sh registry.example:5000/ringfence:v1.2.3 v1.2.3 "$manifests" v1.2.2 || say "not all of a release can be made"
for package in ringfence ringfence-bundle; do
  packed=$(tar -xzOf "$manifests/$package-1.2.3.tgz") || say "the release has no $package"
  [[ $packed == *registry.example:5000/ringfence* && $packed != *ringfence:latest* && $packed == *1.2.3* && $packed != *0.1.0* ]] ||
    say "the package $package of a release has another image, or another version"
  # Of the chart and of the bundle, what others go by.
  case $package in
    ringfence) wants=('appVersion: v1.2.3' '  tag: ""' '  repository: registry.example:5000/ringfence') ;;
    *) wants=('  replaces: ringfence.v1.2.2' '    olm.skipRange: <1.2.3' '  name: ringfence.v1.2.3') ;;
  esac
  for want in "${wants[@]}"; do
    grep -qxF -- "$want" <<<"$packed" || say "the package $package of a release does not say $want"
  done
done
for file in install first-packet uninstall {kind,k3s,openshift}{,-first-packet,-uninstall}; do
  grep -q '^kind: DaemonSet$' "$manifests/$file.yaml" || say "$file.yaml has no DaemonSet"
done
if versions=$(grep -rE '^ +app.kubernetes.io/version:' "$manifests" | grep -v ': v1.2.3$'); then
  say "objects of another version: $versions"
fi
if images=$(grep -rE '^ +(- )?image:' "$manifests" | grep -v ' registry.example:5000/ringfence:v1.2.3$'); then
  say "containers that have another image: $images"
fi
renders config/overlays/openshift SecurityContextConstraints RoleBinding
renders config/samples Namespace Pod NetworkPolicy
if grep -qE '^kind: (ClusterNetworkPolicy|NamespaceIsolation)$' <<<"$("$kubectl" kustomize config/samples)"; then
  say "config/samples has policies for all of a cluster: whoever applies it wants no more than the sample application"
fi

renders config/manifests ClusterServiceVersion Deployment

# What config makes for OLM and for Helm. Where it cannot be made, or is out of date, there is nothing to try.
packages=$generated/packages
for made in bundle chart; do
  go -C hack/packages run . "$made" "$packages" || say "no $made can be made of config"
done
for place in bundle bundle.Dockerfile config/olm charts/ringfence; do
  diff -rq "$place" "$packages/$place" >&2 || say "$place is out of date: run 'make bundle chart'"
done
go -C hack/packages test ./... >&2 || say "the OLM bundle or the Helm chart is not what it should be"

renders config/prometheus Service ServiceMonitor PrometheusRule ConfigMap
promtool=$(hack/prometheus/build.sh)
queries=$generated/queries
mkdir "$queries"
go run ./hack/queries "$queries"
cp test/prometheus/alerts.yaml "$queries/tests.yaml"
said=$("$promtool" check rules --lint=all --lint-fatal "$queries/alerts.yaml" "$queries/dashboard.yaml" 2>&1) ||
  say "config/prometheus asks what Prometheus does not understand: $said"
said=$("$promtool" test rules "$queries/tests.yaml" 2>&1) || say "the alerts are not what test/prometheus/alerts.yaml says: $said"
go -C hack/gitops test ./... >&2 || say "config/argocd or config/flux says something else of a policy's health than it should"

# -count=1 since the script that this tests is not in its module, so that Go would not see a change of it.
go -C hack/envtest test -count=1 ./... >&2 || say "hack/kube/build.sh takes published programs that it should not, or does not build where it should"

# The workflows, without the linters of other languages, which a machine may have or not.
said=$(go tool -modfile=hack/workflows/go.mod actionlint -shellcheck= -pyflakes= 2>&1) || say "the workflows are not what GitHub understands: $said"

# Links of the form [text](path), seen from the file that has them. What a generator writes elsewhere is looked at there.
while IFS=: read -r file link; do
  target=${link#*](}
  target=${target%)}
  target=${target%%#*}
  [[ -z $target || $target == *://* || -e $(dirname "$file")/$target ]] || say "$file links to $target, which does not exist"
done < <(git ls-files '*.md' ':!hack/packages/chart' | xargs grep -oHE '\]\([^)]*\)')

while IFS=: read -r file name; do
  git grep -qE "^func $name\(" -- '*_test.go' || say "$file names $name, which is no test"
done < <(git ls-files '*.md' | xargs grep -oHE '\b(Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9]+' | sort -u)

exit "$failed"
