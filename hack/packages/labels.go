package main

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Of the labels that Kubernetes recommends, those that depend on who installs an object, and which release it is of.
const (
	instanceLabel  = "app.kubernetes.io/instance"
	managedByLabel = "app.kubernetes.io/managed-by"
	versionLabel   = "app.kubernetes.io/version"
)

// relabel says who manages an object, and of which version it is, in the place of what config/default says.
func relabel(o *unstructured.Unstructured, managedBy, version string) {
	labels := o.GetLabels()
	if labels[managedByLabel] != "" {
		labels[managedByLabel], labels[versionLabel] = managedBy, version
		o.SetLabels(labels)
	}
}

// sameVersion checks that objects have the version of the bundle in their labels.
func sameVersion(objects []*unstructured.Unstructured, version string) error {
	for _, o := range objects {
		if got := o.GetLabels()[versionLabel]; got != "v"+version {
			return fmt.Errorf("%s has the label %s=%s, and config/manifests is of version %s", identity(o), versionLabel, got, version)
		}
	}
	return nil
}
