#!/usr/bin/env bash
# build.sh: puts kube-apiserver, etcd, kubectl and the CNI plugins into a cache, where what exists already is kept:
#
#   ${XDG_CACHE_HOME:-~/.cache}/ringfence/kube-VERSION/  kube-apiserver, etcd, kubectl: KUBEBUILDER_ASSETS for envtest too
#   ${XDG_CACHE_HOME:-~/.cache}/ringfence/cni-VERSION/   bridge, ptp, host-device, macvlan, host-local, loopback, portmap
#
# A KUBEBUILDER_ASSETS or CNI_PATH that is set and complete is used instead. Prints what it does on standard error,
# and on standard output nothing but the two variables, so that a shell can eval it.
#
# The CNI plugins are built from their Go module. The others are taken from the archive that envtest publishes (hack/envtest): kube-VERSION is a
# link then, whose target names the release, which may be another patch release of the same minor. Where that archive cannot be had they are
# built from their Go modules too. KUBE_FROM=source builds them in any case, and so does CI=true, so that each run tests exactly the release that
# go.mod pins, whatever the internet does. KUBE_INDEX=URL is another index of archives, such as a mirror's.
#
# KUBE_VERSION=1.35.4 builds the kube-apiserver of that release of Kubernetes instead, for the same etcd and kubectl; a KUBEBUILDER_ASSETS
# that is set does not count then.
#
# usage: build.sh [kube|cni]...    (default: both)
set -euo pipefail

hack=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ringfence
export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off
part= builder=
trap '[[ -z $builder ]] || kill "$builder" 2>/dev/null || true; [[ -z $part ]] || rm -f "$part" "$part.log"' EXIT
trap 'exit 130' INT TERM

say() { printf '%s\n' "$*" >&2; }
clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# complete DIR NAME...: whether DIR holds all those programs.
complete() {
  local dir=$1 name
  shift
  [[ -n $dir ]] || return 1
  for name; do [[ -x $dir/$name ]] || return 1; done
}

# build DIR NAME MODULE PACKAGE ABOUT: makes DIR/NAME from PACKAGE of the module in the directory MODULE, which may be below hack. ABOUT
# says how long the first time takes. It takes its final name last, so that an interrupted build leaves nothing that looks whole.
build() {
  local dir=$1 name=$2 module=$3 package=$4 about=$5 start=$SECONDS shown=0 total done
  [[ ! -x $dir/$name ]] || return 0
  mkdir -p "$dir"
  part=$dir/.$name.$$
  say "building $name (the first time: $about)"
  cd "$hack"
  cd "$module"
  go mod download 2>&1 | sed 's/^/  /' >&2
  total=$(go list -deps "$package" | wc -l)
  # One compiler per core, but politely: this may run beside real work.
  nice -n 5 go build -v -ldflags "$flags" -o "$part" "$package" 2>"$part.log" &
  builder=$!
  while kill -0 "$builder" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - start >= shown + 10)); then
      shown=$((SECONDS - start))
      done=$(grep -cv '^go: ' "$part.log" || true)
      if ((done)); then
        say "  $name: $(clock "$shown"), compiled $done of at most $total packages; last: $(tail -n 1 "$part.log")"
      else
        say "  $name: $(clock "$shown"), $total packages to look at"
      fi
    fi
  done
  if ! wait "$builder"; then
    say "building $name failed:"
    tail -n 20 "$part.log" >&2
    exit 1
  fi
  builder=
  mv "$part" "$dir/$name"
  rm -f "$part.log"
  part=
  say "  $name: built in $(clock $((SECONDS - start)))"
}

version() { (cd "$hack/$1" && go list -m -f '{{.Version}}' "$2"); }

# flagsOf VERSION: what tells a program of Kubernetes which release it is of.
flagsOf() {
  local vars=k8s.io/component-base/version minor=${1#*.}
  printf '%s' "-s -w -X $vars.gitVersion=$1 -X $vars.gitMajor=1 -X $vars.gitMinor=${minor%.*} -X $vars.gitTreeState=clean"
}

# moduleOf DIR VERSION: makes in DIR a module that builds the programs of a release of Kubernetes from what it was released with: its own go.mod
# and go.sum, in which those modules that it takes from its tree are at the version that was published with it.
moduleOf() {
  local dir=$1 version=$2 source staged
  mkdir -p "$dir"
  cd "$dir"
  source=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p') || true
  if [[ -z $source ]]; then
    say "the module proxy does not have k8s.io/kubernetes@$version, or cannot vouch for it:"
    go mod download "k8s.io/kubernetes@$version" >&2 || true
    exit 1
  fi
  install -m 644 "$source/go.mod" "$source/go.sum" .
  go mod edit -module=kube-apiserver -require="k8s.io/kubernetes@$version"
  for staged in $(sed -n 's,.*=> ./staging/src/\(.*\),\1,p' "$source/go.mod"); do
    go mod edit -replace="$staged=$staged@v0.${version#v1.}"
  done
  go list -mod=mod -deps k8s.io/kubernetes/cmd/kube-apiserver >/dev/null # notes the sums of those, which the checksum database vouches for
}

# published DIR VERSION: makes DIR a link to the programs of that release, or of another patch release of its minor, as envtest publishes them.
# Where these cannot be had, hack/envtest says why, and nothing is changed.
published() {
  local dir=$1 version=$2 to
  to=$(go -C "$hack/envtest" run . -cache "$cache" ${KUBE_INDEX:+-index "$KUBE_INDEX"} "$version") || return 0
  [[ -n $to ]] || return 0
  rm -rf "$dir" # a build that was interrupted
  ln -s "$to" "$dir"
}

# another DIR: builds kube-apiserver of KUBE_VERSION, another release than hack/kube pins. Its etcd and kubectl are those in DIR.
another() {
  local version=v${KUBE_VERSION#v} pinned=$1 name flags
  KUBEBUILDER_ASSETS=$cache/kube-$version
  flags=$(flagsOf "$version")
  if [[ ! -x $KUBEBUILDER_ASSETS/kube-apiserver ]]; then
    (moduleOf "$KUBEBUILDER_ASSETS/module" "$version")
    build "$KUBEBUILDER_ASSETS" kube-apiserver "$KUBEBUILDER_ASSETS/module" k8s.io/kubernetes/cmd/kube-apiserver 'about five minutes on two cores'
  fi
  for name in etcd kubectl; do
    ln -sfn "$pinned/$name" "$KUBEBUILDER_ASSETS/$name"
  done
}

kube() {
  if [[ -z ${KUBE_VERSION:-} && -n ${KUBEBUILDER_ASSETS:-} ]] && complete "$KUBEBUILDER_ASSETS" kube-apiserver etcd; then
    say "API server: KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS"
  else
    local version flags from=published
    [[ ${CI:-} != true ]] || from=source
    from=${KUBE_FROM:-$from}
    [[ $from == @(published|source) ]] || { say "KUBE_FROM=$from is neither published nor source" && exit 2; }
    version=$(version kube k8s.io/kubernetes)
    KUBEBUILDER_ASSETS=$cache/kube-$version
    if [[ -L $KUBEBUILDER_ASSETS ]] && { [[ $from == source ]] || ! complete "$KUBEBUILDER_ASSETS" kube-apiserver etcd kubectl; }; then
      rm "$KUBEBUILDER_ASSETS"
    fi
    if [[ $from == published ]] && ! complete "$KUBEBUILDER_ASSETS" kube-apiserver etcd kubectl; then
      published "$KUBEBUILDER_ASSETS" "$version"
    fi
    flags=$(flagsOf "$version")
    build "$KUBEBUILDER_ASSETS" etcd kube go.etcd.io/etcd/server/v3 'about a minute on two cores'
    build "$KUBEBUILDER_ASSETS" kubectl kube k8s.io/kubernetes/cmd/kubectl 'about a minute on two cores'
    if [[ -z ${KUBE_VERSION:-} || v${KUBE_VERSION#v} == "$version" ]]; then
      build "$KUBEBUILDER_ASSETS" kube-apiserver kube k8s.io/kubernetes/cmd/kube-apiserver 'about five minutes on two cores'
    else
      another "$KUBEBUILDER_ASSETS"
    fi
    say "API server: $KUBEBUILDER_ASSETS"
  fi
  printf 'export KUBEBUILDER_ASSETS=%q\n' "$KUBEBUILDER_ASSETS"
}

cni() {
  local plugins=(host-local bridge ptp host-device macvlan loopback portmap)
  if [[ -n ${CNI_PATH:-} ]] && complete "$CNI_PATH" "${plugins[@]}"; then
    say "CNI plugins: CNI_PATH=$CNI_PATH"
  else
    local version module=github.com/containernetworking/plugins
    version=$(version cni $module)
    CNI_PATH=$cache/cni-$version
    flags="-s -w -X $module/pkg/utils/buildversion.BuildVersion=$version"
    build "$CNI_PATH" host-local cni $module/plugins/ipam/host-local 'a quarter of a minute'
    build "$CNI_PATH" bridge cni $module/plugins/main/bridge 'seconds'
    build "$CNI_PATH" ptp cni $module/plugins/main/ptp 'seconds'
    build "$CNI_PATH" host-device cni $module/plugins/main/host-device 'seconds'
    build "$CNI_PATH" macvlan cni $module/plugins/main/macvlan 'seconds'
    build "$CNI_PATH" loopback cni $module/plugins/main/loopback 'seconds'
    build "$CNI_PATH" portmap cni $module/plugins/meta/portmap 'seconds'
    say "CNI plugins: $CNI_PATH"
  fi
  printf 'export CNI_PATH=%q\n' "$CNI_PATH"
}

(($#)) || set -- kube cni
for what; do
  case $what in
    kube | cni) "$what" ;;
    *)
      say "usage: ${0##*/} [kube|cni]..."
      exit 2
      ;;
  esac
done
