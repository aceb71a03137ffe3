#!/usr/bin/env bash
# manifests.sh IMAGE VERSION DIR: writes what kubectl applies without a checkout, with IMAGE as the image of all containers, and VERSION in the
# label app.kubernetes.io/version:
#
#   DIR/install.yaml, DIR/first-packet.yaml, DIR/uninstall.yaml     config/default, config/first-packet, config/uninstall
#   DIR/PLATFORM.yaml, ...                                          config/overlays/PLATFORM, ...
set -euo pipefail

if (($# != 3)); then
  echo "usage: ${0##*/} IMAGE VERSION DIR" >&2
  exit 2
fi
image=$1 version=$2
mkdir -p "$3"
out=$(cd "$3" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hack/image-reference.sh
split_image "$image"

eval "$(hack/kube/build.sh kube 2>/dev/null)"
kubectl=$KUBEBUILDER_ASSETS/kubectl
[[ -x $kubectl ]] || kubectl=kubectl # KUBEBUILDER_ASSETS may be the user's own, without it

# kustomize takes one of both; a digest says more.
field="newTag: \"$tag\""
[[ -z $digest ]] || field="digest: $digest"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r config "$work"

# write DIR NAME: renders a directory of config into NAME.yaml.
write() {
  local top=$work/config/dist-$2
  mkdir "$top"
  cat >"$top/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../$1
images:
- name: ringfence
  newName: $name
  $field
labels:
- pairs:
    app.kubernetes.io/version: "$version"
END
  "$kubectl" kustomize "$top" >"$out/$2.yaml.part"
  mv "$out/$2.yaml.part" "$out/$2.yaml"
}

write default install
write first-packet first-packet
write uninstall uninstall
for overlay in config/overlays/*/; do
  overlay=${overlay%/}
  write "overlays/${overlay##*/}" "${overlay##*/}"
done
