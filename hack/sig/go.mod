// The release of the SIG's network-policy-api before the one that Ringfence is built with: tests change between the CustomResourceDefinitions of
// both. This module only pins the version.
module github.com/ringfence-io/ringfence/hack/sig

go 1.26.0

require sigs.k8s.io/network-policy-api v0.2.0 // held: tests upgrade from it
