#!/usr/bin/env bash
# up.sh NAME FAMILY PROXY: makes a kind cluster in which nobody enforces NetworkPolicies, for `make e2e`.
#
#   FAMILY  ipv4, ipv6 or dual
#   PROXY   iptables or nftables, for kube-proxy
#
# kind's own CNI, kindnet, enforces them itself. In its place each node gets the CNI plugin that kindnet uses, ptp, and routes to the other nodes' pods.
# What ends the cluster is `kind delete cluster --name NAME`.
set -euo pipefail

if (($# != 3)); then
  echo "usage: ${0##*/} NAME ipv4|ipv6|dual iptables|nftables" >&2
  exit 2
fi
name=$1 family=$2 proxy=$3
v4=10.244.0.0/16 v6=fd00:10:244::/56
case $family in
  ipv4) pods=$v4 ;;
  ipv6) pods=$v6 ;;
  dual) pods=$v4,$v6 ;;
  *) echo "$family is no family: ipv4, ipv6 or dual" >&2; exit 2 ;;
esac

kind create cluster --name "$name" --config - <<END
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  ipFamily: $family
  kubeProxyMode: $proxy
  disableDefaultCNI: true
  podSubnet: "$pods"
nodes:
- role: control-plane
- role: worker
- role: worker
END

kubectl() { command kubectl --context "kind-$name" "$@"; }

# cidrs NODE, addresses NODE: one to a line.
cidrs() { kubectl get node "$1" -o jsonpath='{range .spec.podCIDRs[*]}{@}{"\n"}{end}'; }
addresses() { kubectl get node "$1" -o jsonpath='{range .status.addresses[?(@.type=="InternalIP")]}{.address}{"\n"}{end}'; }

# of CIDR: which lines of the standard input are addresses of its family.
of() { if [[ $1 == *:* ]]; then grep :; else grep -v :; fi; }

nodes=$(kind get nodes --name "$name")
for node in $nodes; do # the controller manager gives them
  for ((tries = 0; ; tries++)); do
    [[ -z $(cidrs "$node") ]] || break
    ((tries < 120)) || { echo "node $node has no range for pods: kubectl --context kind-$name -n kube-system logs -l component=kube-controller-manager" >&2; exit 1; }
    sleep 1
  done
done
for node in $nodes; do
  ranges='' routes=''
  for cidr in $(cidrs "$node"); do
    ranges+="${ranges:+, }[{\"subnet\": \"$cidr\"}]"
    [[ $cidr == *:* ]] && all=::/0 || all=0.0.0.0/0
    routes+="${routes:+, }{\"dst\": \"$all\"}"
    for other in $nodes; do
      [[ $other == "$node" ]] || docker exec "$other" ip route replace "$cidr" via "$(addresses "$node" | of "$cidr" | head -n 1)"
    done
  done
  docker exec -i "$node" tee /etc/cni/net.d/10-ptp.conflist >/dev/null <<END
{
  "cniVersion": "1.0.0",
  "name": "ptp",
  "plugins": [
    {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [$ranges], "routes": [$routes]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
END
done
kubectl wait --for=condition=Ready node --all --timeout=3m
