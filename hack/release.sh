#!/usr/bin/env bash
# release.sh IMAGE VERSION DIR: writes what a release has besides its image, each file naming IMAGE:
#
#   DIR/install.yaml, ...                      as manifests.sh writes them
#   DIR/ringfence-chart-VERSION.tgz            what helm install takes
#   DIR/ringfence-bundle-VERSION.tgz           the context of bundle.Dockerfile
set -euo pipefail

if (($# != 3)); then
  echo "usage: ${0##*/} IMAGE VERSION DIR" >&2
  exit 2
fi
image=$1 version=${2#v}
if [[ ! $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
  echo "$2 is no version as Helm and OLM know them: give one such as v1.2.3" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
hack/manifests.sh "$image" "$3" # which refuses what is no image with a tag or a digest
out=$(cd "$3" && pwd)

digest='' tag=''
case $image in
  *@*) name=${image%%@*} digest=${image#*@} ;;
  *) name=${image%:*} tag=${image##*:} ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bundle"
cp -r charts/ringfence "$work/ringfence"
cp -r bundle bundle.Dockerfile "$work/bundle"

# edit FILE LINE NEW: puts NEW in the place of the lines that LINE describes, of which there has to be one at least.
edit() {
  grep -qE "$2" "$1" || { echo "$1 has no line $2" >&2; exit 1; }
  sed -Ei "s#$2#$3#" "$1"
}
edit "$work/ringfence/Chart.yaml" '^appVersion: .*' "appVersion: \"$version\""
edit "$work/ringfence/Chart.yaml" '^version: .*' "version: \"$version\""
edit "$work/ringfence/values.yaml" '^  repository: ringfence$' "  repository: $name"
edit "$work/ringfence/values.yaml" '^  tag: latest$' "  tag: \"$tag\""
edit "$work/ringfence/values.yaml" '^  digest: ""$' "  digest: \"$digest\""
csv=$work/bundle/bundle/manifests/ringfence.clusterserviceversion.yaml
edit "$csv" 'ringfence:latest' "$image"
edit "$csv" '^  name: ringfence\.v.*' "  name: ringfence.v$version"
edit "$csv" '^  version: [0-9].*' "  version: $version"

# pack DIR NAME: the same content makes the same file.
pack() { tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -cf - "$1" | gzip -n >"$out/$2-$version.tgz"; }
pack ringfence ringfence-chart
pack bundle ringfence-bundle
