package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
)

// What is tried here is what lies in the tree; hack/verify.sh sees to it that this is what config makes.

// kustomized is what kustomize makes of a directory of config, by the objects' identities, with its own namespace or another.
func kustomized(t *testing.T, namespace string, dirs ...string) map[string]any {
	t.Helper()
	config, err := original()
	must(t, err)
	out := map[string]any{}
	must(t, config.in(namespace, func(config tree) error {
		for _, dir := range dirs {
			objects, err := config.render(dir)
			if err != nil {
				return err
			}
			byIdentity(t, out, objects)
		}
		return nil
	}))
	return out
}

// byIdentity adds objects to a map. None comes twice.
func byIdentity(t *testing.T, to map[string]any, objects []*unstructured.Unstructured) {
	t.Helper()
	for _, o := range objects {
		if to[identity(o)] != nil {
			t.Fatalf("there are two of %s", identity(o))
		}
		to[identity(o)] = o.Object
	}
}

// without is a map without the objects of some kinds.
func without(objects map[string]any, kinds ...string) map[string]any {
	out := map[string]any{}
	for id, o := range objects {
		if !slices.Contains(kinds, o.(map[string]any)["kind"].(string)) {
			out[id] = o
		}
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same compares two sets of objects, and shows what differs and no more.
func same(t *testing.T, want, got map[string]any) {
	t.Helper()
	all := maps.Clone(want)
	maps.Copy(all, got)
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if diff := cmp.Diff(want[id], got[id]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
}

// set puts a value, given as JSON, to a place in a tree; null removes it.
func set(t *testing.T, tree any, path []string, value string) {
	t.Helper()
	var parsed any
	must(t, json.Unmarshal([]byte(value), &parsed))
	for ; len(path) > 1; path = path[1:] {
		if list, ok := tree.([]any); ok {
			i, err := strconv.Atoi(path[0])
			must(t, err)
			tree = list[i]
		} else {
			tree = tree.(map[string]any)[path[0]]
		}
	}
	delete(tree.(map[string]any), path[0])
	if parsed != nil {
		tree.(map[string]any)[path[0]] = parsed
	}
}

func compressed(t *testing.T, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(text)
	must(t, errors.Join(err, w.Close()))
	return out.Bytes()
}
