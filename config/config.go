// Package config carries the manifests that programs need at run time: the rights of the enforcer and the sample
// application. What is applied to a cluster by hand or by kustomize lies beside it and needs no Go.
package config

import "embed"

// EnforcerRole is the ClusterRole that the enforcer is given on a cluster.
//
//go:embed rbac/role.yaml
var EnforcerRole []byte

// Samples holds the sample application (samples/application) and its policies (samples/policies).
//
//go:embed samples/*/*.yaml
var Samples embed.FS
