// Package config carries the manifests that programs need at run time: the kinds of our API group, the rights of our programs
// and the samples. What is applied to a cluster by hand or by kustomize lies beside it and needs no Go.
package config

import "embed"

// CRDs holds the CustomResourceDefinitions of policy.ringfence.io (crd/bases).
//
//go:embed crd/bases/*.yaml
var CRDs embed.FS

// Rights holds what the enforcers and the controller may do on a cluster, and who they are there (rbac), with their namespace. The names are
// short: kustomize makes them those of a cluster (default).
//
//go:embed enforcer/namespace.yaml rbac/*.yaml
var Rights embed.FS

// Enforcers holds what a bundle of the Operator Lifecycle Manager cannot carry of config/default and config/first-packet, which the controller
// installs instead (olm). `make bundle` writes it. $(NAMESPACE), $(IMAGE) and $(VERSION) stand for the installation's, and the item $(ARGS) of a
// list for the enforcers' other flags.
//
//go:embed olm/*.yaml
var Enforcers embed.FS

// Samples holds the sample application (samples/application) and its policies (samples/policies), and the samples for other
// clusters: for a namespace of one's own (samples/namespace) and for all of a cluster (samples/cluster).
//
//go:embed samples/*/*.yaml
var Samples embed.FS
