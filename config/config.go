// Package config carries the manifests that programs need at run time: the kinds of our API group, the rights of the enforcer
// and the samples. What is applied to a cluster by hand or by kustomize lies beside it and needs no Go.
package config

import "embed"

// CRDs holds the CustomResourceDefinitions of policy.ringfence.io (crd/bases).
//
//go:embed crd/bases/*.yaml
var CRDs embed.FS

// EnforcerRole is the ClusterRole that the enforcer is given on a cluster.
//
//go:embed rbac/role.yaml
var EnforcerRole []byte

// Samples holds the sample application (samples/application) and its policies (samples/policies), and the samples for other
// clusters: for a namespace of one's own (samples/namespace) and for all of a cluster (samples/cluster).
//
//go:embed samples/*/*.yaml
var Samples embed.FS
