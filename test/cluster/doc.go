// Package cluster is the suite for a real cluster, whichever it is: `make e2e` runs it through kubectl, as people do who install Ringfence.
//
// It installs, applies the samples, and asks what people ask: is it enforced, what would be denied, is nothing lost in an upgrade, does it leave nothing.
// Who reaches whom is tried by the sample application's own pods, and compared with what the API texts demand.
//
// Its tests are behind the build tag cluster, since they install into, and remove from, whatever cluster KUBECONFIG names.
package cluster
