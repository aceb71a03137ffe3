package source

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	k8syaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Files reads the objects of files and directories, these with all below them. "-" is the standard input. Pods without an address get one from each of some
// ranges.
func Files(paths []string, stdin io.Reader, ranges []netip.Prefix) (Gathered, error) {
	g := &gathering{ranges: ranges, taken: map[netip.Addr]bool{}, invented: map[netip.Addr]bool{}}
	for _, path := range paths {
		if err := g.path(path, stdin); err != nil {
			return Gathered{}, err
		}
	}
	return g.all()
}

// path reads one file, or all of a directory.
func (g *gathering) path(path string, stdin io.Reader) error {
	if path == "-" {
		return g.stream("the standard input", stdin)
	}
	return filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("reading files: %w", err)
		}
		if entry.IsDir() || name != path && !isManifest(name) {
			return nil
		}
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("reading files: %w", err)
		}
		defer f.Close()
		return g.stream(name, f)
	})
}

// isManifest reports whether a file of a directory is read, by its name.
func isManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// stream reads the documents of a file. One that is no object is said, and the others are read.
func (g *gathering) stream(name string, r io.Reader) error {
	documents := k8syaml.NewYAMLReader(bufio.NewReaderSize(r, 1<<16))
	for i := 1; ; i++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if err := g.document(document); err != nil {
			g.missing = append(g.missing, fmt.Sprintf("%s, document %d: %v", name, i, err))
		}
	}
}

// kindLine finds the kind of an object that stands in a document by itself, before that is read at all: a repository may have thousands of other kinds.
var kindLine = regexp.MustCompile(`(?m)^kind:[ \t]*["']?([A-Za-z]+)["']?[ \t\r]*(?:#.*)?$`)

// document reads an object, or the items of a list.
func (g *gathering) document(document []byte) error {
	document = bytes.TrimSpace(document)
	if len(document) == 0 {
		return nil
	}
	isJSON := document[0] == '{' && json.Valid(document)
	if m := kindLine.FindSubmatch(document); m != nil && !isJSON && !isRead(string(m[1])) {
		return nil
	}
	raw := document
	if !isJSON {
		var err error
		if raw, err = yaml.YAMLToJSON(document); err != nil {
			return fmt.Errorf("it is no YAML: %w", err)
		}
	}
	if string(raw) == "null" { // nothing but comments
		return nil
	}
	return g.object(raw, header{})
}

// header is what tells what an object is.
type header struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
}

// object reads one object, or the items of a list. What an item does not say of its kind, the list does: in a PodList of the API server there are Pods without
// a kind.
func (g *gathering) object(raw []byte, of header) error {
	h := header{APIVersion: of.APIVersion, Kind: of.Kind}
	if err := json.Unmarshal(raw, &h); err != nil {
		return fmt.Errorf("it is no object: %w", err)
	}
	if h.Items != nil {
		items := header{APIVersion: h.APIVersion, Kind: strings.TrimSuffix(h.Kind, "List")}
		if items.Kind == "" { // a List of any kinds
			items = header{}
		}
		var errs []error
		for _, item := range h.Items {
			errs = append(errs, g.object(item, items))
		}
		return errors.Join(errs...)
	}
	if h.Kind == "" || h.APIVersion == "" {
		return errors.New("it is no object: kind or apiVersion is missing")
	}
	return g.read(h, raw)
}
