#!/usr/bin/env bash
# generate.sh: makes what is derived from the types in api: their deep copies and the CRDs. It writes to the tree, or to the same
# places below DIR, and reads the tree in either case.
#
# usage: generate.sh [DIR]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
to=${1:-.}
mkdir -p "$to/api/v1alpha1" "$to/config/crd/bases"
go tool -modfile=hack/generate/go.mod controller-gen paths=./api/v1alpha1 \
  object output:object:dir="$to/api/v1alpha1" \
  crd output:crd:dir="$to/config/crd/bases"
