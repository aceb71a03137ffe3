#!/usr/bin/env bash
# manifests.sh IMAGE DIR: writes what kubectl applies without a checkout, with IMAGE as the image of all containers:
#
#   DIR/install.yaml, DIR/first-packet.yaml, DIR/uninstall.yaml     config/default, config/first-packet, config/uninstall
#   DIR/PLATFORM.yaml, ...                                          config/overlays/PLATFORM, ...
set -euo pipefail

if (($# != 2)); then
  echo "usage: ${0##*/} IMAGE DIR" >&2
  exit 2
fi
image=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."

eval "$(hack/kube/build.sh kube 2>/dev/null)"
kubectl=$KUBEBUILDER_ASSETS/kubectl
[[ -x $kubectl ]] || kubectl=kubectl # KUBEBUILDER_ASSETS may be somebody else's, without it

# What is behind the last colon is a tag, unless a slash is there too: then it is a port.
case $image in
  *@*) name=${image%%@*} field="digest: ${image#*@}" ;;
  *) name=${image%:*} field="newTag: \"${image##*:}\"" ;;
esac
if [[ $name == "$image" || ${image##*:} == */* ]]; then
  echo "$image has neither a tag nor a digest" >&2
  exit 2
fi

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
