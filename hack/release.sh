#!/usr/bin/env bash
# release.sh IMAGE VERSION DIR [PREVIOUS]: writes what a release has besides its image, each file naming IMAGE:
#
#   DIR/install.yaml, ...                      as manifests.sh writes them
#   DIR/ringfence-VERSION.tgz                  the chart: what helm install takes
#   DIR/ringfence-bundle-VERSION.tgz           the context of bundle.Dockerfile
#
# PREVIOUS is the release that the bundle replaces in its channel, such as v1.2.2. Without it, it is the newest tag before this commit.
set -euo pipefail

if (($# < 3 || $# > 4)); then
  echo "usage: ${0##*/} IMAGE VERSION DIR [PREVIOUS]" >&2
  exit 2
fi
image=$1 version=${2#v} previous=${4-}
if [[ ! $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
  echo "$2 is no version as Helm and OLM know them: give one such as v1.2.3" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hack/image-reference.sh
split_image "$image"
hack/manifests.sh "$image" "v$version" "$3"
out=$(cd "$3" && pwd)
[[ $tag != "v$version" ]] || tag='' # the chart's own default: its appVersion
[[ -n $previous ]] || previous=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 'HEAD^' 2>/dev/null || true)

committed=$(git log -1 --format=%ct)
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
edit "$work/ringfence/Chart.yaml" '^appVersion: .*' "appVersion: v$version"
edit "$work/ringfence/Chart.yaml" '^version: .*' "version: $version"
edit "$work/ringfence/Chart.yaml" 'image: ringfence:latest' "image: $image"
edit "$work/ringfence/values.yaml" '^  repository: ringfence$' "  repository: $name"
edit "$work/ringfence/values.yaml" '^  tag: ""$' "  tag: \"$tag\""
edit "$work/ringfence/values.yaml" '^  digest: ""$' "  digest: \"$digest\""
csv=$work/bundle/bundle/manifests/ringfence.clusterserviceversion.yaml
edit "$csv" 'ringfence:latest' "$image"
edit "$csv" '^  name: ringfence\.v.*' "  name: ringfence.v$version"
edit "$csv" '^  version: [0-9].*' "  version: $version${previous:+\n  replaces: ringfence.v${previous#v}}"
edit "$csv" '^    olm\.skipRange: .*' "    olm.skipRange: <$version"
edit "$csv" '^    createdAt: .*' "    createdAt: \"$(date -u -d "@$committed" +%Y-%m-%dT%H:%M:%SZ)\""
for file in "$work"/bundle/bundle/manifests/*.yaml; do
  edit "$file" 'app\.kubernetes\.io/version: .*' "app.kubernetes.io/version: v$version"
done

# pack DIR NAME: the same content makes the same file.
pack() { tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$committed" -cf - "$1" | gzip -n >"$out/$2-$version.tgz"; }
pack ringfence ringfence
pack bundle ringfence-bundle
